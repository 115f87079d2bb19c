//! Pure: in which slot of a cluster a key lies, and hash tags by which keys lie where they should.

/// A hash tag that stands in the name of a key and decides at which node that lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HashTag(pub(crate) u32);

/// The slot of a cluster that a key lies in: CRC-16 (XMODEM) of the part in braces, or of all.
pub(crate) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    let mut crc = 0_u16;
    for byte in hashed.unwrap_or(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
        }
    }
    crc % SLOTS
}

/// A tag whose keys lie in one of these slots.
pub(crate) fn tag_in(is_there: impl Fn(u16) -> bool) -> Option<HashTag> {
    let mut numbers = 0..MOST_TAGS;
    let tag = numbers.find(|number| is_there(slot(&format!("{{{number}}}"))));
    tag.map(HashTag)
}

const SLOTS: u16 = 16_384;
/// Among so many numbers each slot has some.
const MOST_TAGS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_those_of_the_server() {
        for (key, expected) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }
}
