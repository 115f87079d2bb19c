//! Pure: the frames of the link: a byte for the kind, four for the length (big-endian), and as many bytes.

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    Offer,
    Ready,
    /// Entries of a token store.
    Tokens,
    /// Entries of what failed logins there were.
    Logins,
    /// Entries of what users, routes and sources have used.
    Usage,
    /// The digest of all state.
    End,
    Loaded,
    Yours,
    Serving,
    Main,
    /// Why the new process does not come up.
    Failed,
    /// What a request in the old process asks of the new one, or tells it.
    Call,
    /// The answer to one of these.
    Answer,
}

/// The longest payload in bytes: an answer that the replay guard stores is the longest part of any.
pub(crate) const MOST: usize = 64 * 1024 * 1024;
/// The length of what precedes it.
pub(crate) const HEAD: usize = 5;

impl Kind {
    const ALL: [Self; 14] = [
        Self::Hello,
        Self::Offer,
        Self::Ready,
        Self::Tokens,
        Self::Logins,
        Self::Usage,
        Self::End,
        Self::Loaded,
        Self::Yours,
        Self::Serving,
        Self::Main,
        Self::Failed,
        Self::Call,
        Self::Answer,
    ];

    fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Whether it is state, which the digest is of.
    pub(super) fn is_state(self) -> bool {
        match self {
            Self::Tokens | Self::Logins | Self::Usage => true,
            Self::Hello
            | Self::Offer
            | Self::Ready
            | Self::End
            | Self::Loaded
            | Self::Yours
            | Self::Serving
            | Self::Main
            | Self::Failed
            | Self::Call
            | Self::Answer => false,
        }
    }
}

/// What precedes a payload; `None` if that is too long.
pub(crate) fn head(kind: Kind, length: usize) -> Option<[u8; HEAD]> {
    let length = u32::try_from(length).ok().filter(|_| length <= MOST)?;
    let [a, b, c, d] = length.to_be_bytes();
    Some([kind.number(), a, b, c, d])
}

/// The kind and the length of the payload that follows; `None` if there is no such frame.
pub(crate) fn parse(head: [u8; HEAD]) -> Option<(Kind, usize)> {
    let [number, a, b, c, d] = head;
    let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number)?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    (length <= MOST).then_some((kind, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_is_read_back_and_no_frame_is_longer_than_allowed() {
        for kind in Kind::ALL {
            let head = head(kind, 77).unwrap();
            assert_eq!(parse(head), Some((kind, 77)));
        }
        assert!(head(Kind::Tokens, MOST).is_some());
        assert_eq!(head(Kind::Tokens, MOST + 1), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_would_be_written(bytes: [u8; HEAD]) {
            if let Some((kind, length)) = parse(bytes) {
                prop_assert_eq!(head(kind, length), Some(bytes));
            }
        }
    }
}
