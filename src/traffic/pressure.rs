//! Whether memory is so short that new requests are sent away.

use std::sync::atomic::{AtomicBool, Ordering};

use bytesize::ByteSize;

/// A high-water mark of memory, and on which side of it the process is.
#[derive(Debug)]
pub struct Pressure {
    mark: u64,
    high: AtomicBool,
}

impl Pressure {
    /// A mark; zero means none.
    #[must_use]
    pub fn new(mark: ByteSize) -> Self {
        Self {
            mark: mark.as_u64(),
            high: AtomicBool::new(false),
        }
    }

    /// Whether there is a mark, so that somebody has to look.
    #[must_use]
    pub fn has_mark(&self) -> bool {
        self.mark > 0
    }

    /// Whether new requests are to be sent away.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// Notes how much memory is resident. High is from the mark on, and until a sixteenth of it is
    /// free again, so that service does not flicker.
    pub fn note(&self, resident: u64) {
        let enough = self.mark - self.mark / 16;
        let high = if self.is_high() {
            resident > enough
        } else {
            resident >= self.mark
        };
        if self.high.swap(high, Ordering::Relaxed) != high {
            let resident = ByteSize::b(resident);
            if high {
                tracing::error!(%resident, "new requests are sent away (limits.memory)");
            } else {
                tracing::warn!(%resident, "memory is free again: new requests are served");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_returns_when_some_of_it_is_free() {
        let pressure = Pressure::new(ByteSize::b(1600));
        for (resident, high) in [
            (0, false),
            (1599, false),
            (1600, true),
            (1599, true),
            (1501, true),
            (1500, false),
            (1599, false),
        ] {
            pressure.note(resident);
            assert_eq!(pressure.is_high(), high, "{resident}");
        }
    }
}
