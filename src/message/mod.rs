//! Pure: the rules of HTTP messages (RFC 9110, 9112): validation of requests, framing of bodies, forwarding of
//! header fields, parsing and serializing of heads. Knows no connection and no configuration but the limits.

pub mod framing;
pub mod headers;
pub mod media_type;
pub mod request;
pub mod request_head;
pub mod response_head;
