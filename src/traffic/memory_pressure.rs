//! Whether memory is so short that new requests are shed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytesize::ByteSize;

/// A high-water mark for resident memory, and whether it has been reached.
#[derive(Debug)]
pub struct MemoryPressure {
    high_water_mark: AtomicU64,
    high: AtomicBool,
}

impl MemoryPressure {
    /// With this high-water mark; zero means none.
    #[must_use]
    pub fn new(high_water_mark: ByteSize) -> Self {
        Self {
            high_water_mark: AtomicU64::new(high_water_mark.as_u64()),
            high: AtomicBool::new(false),
        }
    }

    /// With another high-water mark from now on.
    pub fn set_high_water_mark(&self, mark: ByteSize) {
        self.high_water_mark.store(mark.as_u64(), Ordering::Relaxed);
    }

    /// Whether there is a mark, so that memory must be monitored.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.limit() > 0
    }

    /// Whether to shed new requests.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// The high-water mark in bytes; zero means none.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.high_water_mark.load(Ordering::Relaxed)
    }

    /// Records how much memory is resident. Requests are shed from the mark on, until memory drops by
    /// a sixteenth of it: the hysteresis keeps the gateway from flapping.
    pub fn update(&self, resident: u64) {
        let high_water_mark = self.limit();
        let low_water_mark = high_water_mark - high_water_mark / 16;
        let high = if self.is_high() {
            resident > low_water_mark
        } else {
            resident >= high_water_mark
        };
        if self.high.swap(high, Ordering::Relaxed) != high {
            let resident = ByteSize::b(resident);
            if high {
                tracing::error!(%resident, "memory reached limits.memory: new requests are shed");
            } else {
                tracing::warn!(%resident, "memory is below limits.memory again: new requests are served");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_returns_when_some_of_it_is_free() {
        let memory_pressure = MemoryPressure::new(ByteSize::b(1600));
        for (resident, high) in [
            (0, false),
            (1599, false),
            (1600, true),
            (1599, true),
            (1501, true),
            (1500, false),
            (1599, false),
        ] {
            memory_pressure.update(resident);
            assert_eq!(memory_pressure.is_high(), high, "{resident}");
        }
    }
}
