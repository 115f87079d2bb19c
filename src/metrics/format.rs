//! Pure: the two text formats, which of them a scraper wants, and how the one is made of the other.

use http::HeaderMap;
use http::header::ACCEPT;

/// A text format that metrics are exposed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// The one that a request prefers: the text format of Prometheus, unless it says otherwise.
    pub(crate) fn preferred(headers: &HeaderMap) -> Self {
        let (mut open, mut text) = (0, 0);
        let values = headers.get_all(ACCEPT).iter();
        let ranges = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1000, true);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = thousandths(value),
                    Some(("version", value)) => is_known = VERSIONS.contains(&value),
                    Some(_) | None => {}
                }
            }
            match &*media_type {
                "application/openmetrics-text" if is_known => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        match open > text {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics in this format.
    pub(super) fn convert(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => to_prometheus(&open_metrics),
        }
    }
}

/// Of the versions of OpenMetrics those that are alike, and that of the text format.
const VERSIONS: [&str; 3] = ["1.0.0", "0.0.1", "0.0.4"];

/// A quality value (RFC 9110 section 12.4.2); one that is malformed is 0.
fn thousandths(quality: &str) -> u32 {
    let number = quality.parse::<f32>().ok();
    let number = number.filter(|number| (0.0..=1.0).contains(number));
    number.map_or(0, |number| (number * 1000.0) as u32)
}

/// There the names of counters and of infos include their suffix, and units and the end are not told.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut push = |parts: [&str; 4]| {
        text.extend(parts);
        text.push('\n');
    };
    // Of each metric, HELP is followed by TYPE.
    let mut help = ("", "");
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            push(["# HELP ", name, suffix, &format!(" {}", help.1)]);
            push(["# TYPE ", name, suffix, &format!(" {kind}")]);
        } else if !line.starts_with('#') {
            push([line, "", "", ""]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_scraper_gets_what_it_prefers() {
        use Format::{OpenMetrics, Prometheus};
        let of_prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, Prometheus),
            (Some("*/*"), Prometheus),
            (Some("text/plain"), Prometheus),
            (Some("application/openmetrics-text"), OpenMetrics),
            (
                Some("Application/OpenMetrics-Text; version=1.0.0"),
                OpenMetrics,
            ),
            (
                Some("application/openmetrics-text; version=2.0.0"),
                Prometheus,
            ),
            (Some("application/openmetrics-text;q=0"), Prometheus),
            (
                Some("application/openmetrics-text;q=0.1, text/plain;q=0.2"),
                Prometheus,
            ),
            (Some("application/openmetrics-text;q=x"), Prometheus),
            (Some("application/json"), Prometheus),
            (Some(of_prometheus), OpenMetrics),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(Format::preferred(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn suffixes_are_part_of_names_in_the_text_format() {
        let open = "\
# HELP a_seconds Of a b.
# TYPE a_seconds counter
# UNIT a_seconds seconds
a_seconds_total{x=\"# y\"} 1
# HELP build Of it.
# TYPE build info
build_info{version=\"1\"} 1
# HELP c Of c.
# TYPE c gauge
c 2
# EOF
";
        let expected = "\
# HELP a_seconds_total Of a b.
# TYPE a_seconds_total counter
a_seconds_total{x=\"# y\"} 1
# HELP build_info Of it.
# TYPE build_info gauge
build_info{version=\"1\"} 1
# HELP c Of c.
# TYPE c gauge
c 2
";
        assert_eq!(to_prometheus(open), expected);
    }
}
