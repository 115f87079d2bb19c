//! Pure: the rules of HTTP messages (RFC 9110, 9112). What a request must be, how a body is framed, which
//! header fields pass, and how heads are read and written. Knows no connection and no configuration
//! beyond the limits.

pub mod framing;
pub mod headers;
pub mod media_type;
pub mod request;
pub mod request_head;
pub mod response_head;
