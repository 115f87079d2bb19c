//! Percentiles and the one line of JSON that the driver reads.

use std::time::Duration;

/// Latencies, in the order they came.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.0
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON members `p50`, `p90`, `p99`, `p999` and `max`, in microseconds.
    pub fn members(mut self) -> String {
        self.0.sort_unstable();
        let at = |share: f64| {
            let last = self.0.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            self.0
                .get(index)
                .map_or(0.0, |nanos| *nanos as f64 / 1000.0)
        };
        format!(
            r#""p50":{:.1},"p90":{:.1},"p99":{:.1},"p999":{:.1},"max":{:.1}"#,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_the_sorted_list() {
        let mut latencies = Latencies::default();
        for micros in (0..=1000).rev() {
            latencies.push(Duration::from_micros(micros));
        }
        let expected = r#""p50":500.0,"p90":900.0,"p99":990.0,"p999":999.0,"max":1000.0"#;
        assert_eq!(latencies.members(), expected);
    }
}
