//! Metrics as text, by the encoder of prometheus-client: names, escaping and the order of lines are its.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::cells::Distribution;
use super::format::Format;

/// The labels of one series.
pub(crate) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Where metrics are written to.
pub(crate) struct Exposition<'e, 's>(&'e mut DescriptorEncoder<'s>);

impl Exposition<'_, '_> {
    /// A counter of things; `_total` is added to its name.
    pub(crate) fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.counter_in(name, help, None, series)
    }

    /// A counter of bytes; `_bytes_total` is added to its name.
    pub(crate) fn bytes<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.counter_in(name, help, Some(&Unit::Bytes), series)
    }

    fn counter_in<'a>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut metric = (self.0).encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, count) in series {
            labeled(&mut metric, &labels, |one| {
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)
            })?;
        }
        Ok(())
    }

    /// A counter of seconds; `_seconds_total` is added to its name.
    pub(crate) fn seconds<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = (self.0).encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, sum) in series {
            labeled(&mut metric, &labels, |one| {
                one.encode_counter::<NoLabelSet, _, u64>(&sum, None)
            })?;
        }
        Ok(())
    }

    /// A value that goes up and down. Its name says its unit.
    pub(crate) fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let mut metric = (self.0).encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            labeled(&mut metric, &labels, |one| one.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// A distribution of durations; `_seconds` is added to its name.
    pub(crate) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, Distribution)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = (self.0).encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, found) in series {
            let buckets: Vec<_> = found.buckets().collect();
            labeled(&mut metric, &labels, |one| {
                one.encode_histogram::<NoLabelSet>(found.sum(), found.count(), &buckets, None)
            })?;
        }
        Ok(())
    }

    /// Facts that do not change; `_info` is added to its name.
    pub(crate) fn info(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> fmt::Result {
        let mut metric = (self.0).encode_descriptor(name, help, None, MetricType::Info)?;
        metric.encode_info(labels)
    }
}

/// Writes one series; one without labels is written without braces.
fn labeled(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    match labels.is_empty() {
        true => write(metric),
        false => write(&mut metric.encode_family(labels)?),
    }
}

/// The text of what `write` writes.
pub(crate) fn render(
    format: Format,
    write: impl Fn(&mut Exposition<'_, '_>) -> fmt::Result + Send + Sync + 'static,
) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Written(write)));
    let mut text = String::new();
    // A string always takes it, and nothing else fails.
    let _ = encode(&mut text, &registry);
    format.convert(text)
}

/// What the registry asks for its metrics.
struct Written<F>(F);

impl<F> fmt::Debug for Written<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

impl<F> Collector for Written<F>
where
    F: Fn(&mut Exposition<'_, '_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Exposition(&mut encoder))
    }
}
