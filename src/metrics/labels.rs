//! Pure: the values of labels that a request chooses: closed sets, whatever a client sends.

use http::{Method, StatusCode};

/// The method of a request, for those methods that HTTP defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodLabel {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// PATCH.
    Patch,
    /// OPTIONS.
    Options,
    /// CONNECT.
    Connect,
    /// TRACE.
    Trace,
    /// Any other.
    Other,
    /// The request could not be read.
    Unread,
}

impl MethodLabel {
    /// The label of a method; `None` is one that could not be read.
    #[must_use]
    pub fn of(method: Option<&Method>) -> Self {
        match method {
            None => Self::Unread,
            Some(&Method::POST) => Self::Post,
            Some(&Method::GET) => Self::Get,
            Some(&Method::HEAD) => Self::Head,
            Some(&Method::PUT) => Self::Put,
            Some(&Method::DELETE) => Self::Delete,
            Some(&Method::PATCH) => Self::Patch,
            Some(&Method::OPTIONS) => Self::Options,
            Some(&Method::CONNECT) => Self::Connect,
            Some(&Method::TRACE) => Self::Trace,
            Some(_) => Self::Other,
        }
    }

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Other => "other",
            Self::Unread => "unread",
        }
    }
}

/// The class of a response's status (RFC 9110 section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 1xx.
    Informational,
    /// 2xx.
    Successful,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// A status that belongs to none of them.
    Other,
    /// The client was gone before there was a response.
    Absent,
}

impl StatusClass {
    /// The class of a status; `None` is that of no response.
    #[must_use]
    pub fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Absent,
            Some(1) => Self::Informational,
            Some(2) => Self::Successful,
            Some(3) => Self::Redirection,
            Some(4) => Self::ClientError,
            Some(5) => Self::ServerError,
            Some(_) => Self::Other,
        }
    }

    /// Whether the request failed, for whatever reason.
    #[must_use]
    pub fn is_error(self) -> bool {
        match self {
            Self::ClientError | Self::ServerError | Self::Absent => true,
            Self::Informational | Self::Successful | Self::Redirection | Self::Other => false,
        }
    }

    /// The value of the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Successful => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Other => "other",
            Self::Absent => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_makes_up_is_other() {
        for (method, expected) in [
            ("GET", "GET"),
            ("POST", "POST"),
            ("get", "other"),
            ("POSTT", "other"),
            ("PROPFIND", "other"),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(MethodLabel::of(Some(&method)).name(), expected);
        }
        assert_eq!(MethodLabel::of(None).name(), "unread");
    }

    #[test]
    fn a_status_has_a_class() {
        for (status, expected) in [
            (Some(200), "2xx"),
            (Some(404), "4xx"),
            (Some(599), "5xx"),
            (Some(999), "other"),
            (None, "none"),
        ] {
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            assert_eq!(StatusClass::of(status).name(), expected);
        }
    }
}
