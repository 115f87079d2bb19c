//! Pure: what the gateway did in the last hour, by ten seconds, and in the last day, by five minutes.
//!
//! Kept by the thread of the admin interface from the counts of the workers, which know nothing of it. A point
//! is the difference of two readings of the counts.

mod point;
mod reading;
mod shown;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::UnixSeconds;
use point::Point;

pub(super) use reading::Reading;

/// The last hour and the last day.
#[derive(Debug)]
pub(super) struct History {
    hour: Ring,
    day: Ring,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Span {
    /// The last hour.
    #[default]
    Hour,
    /// The last day.
    Day,
}

impl History {
    /// Begins with these counts.
    pub(super) fn begin(now: UnixSeconds, reading: Reading) -> Self {
        let reading = Arc::new(reading);
        Self {
            hour: Ring::new(10, 360, now, &reading),
            day: Ring::new(300, 288, now, &reading),
        }
    }

    /// Whether a point is due, so that the counts should be read.
    pub(super) fn is_due(&self, now: UnixSeconds) -> bool {
        self.hour.is_due(now) || self.day.is_due(now)
    }

    /// Adds the points that are due. Where nobody looked for longer than an interval, one point stands for all
    /// of the time; where the clock was set back, what it has not reached again is forgotten.
    pub(super) fn add(&mut self, now: UnixSeconds, reading: Reading) {
        let reading = Arc::new(reading);
        self.hour.add(now, &reading);
        self.day.add(now, &reading);
    }

    fn ring(&self, span: Span) -> &Ring {
        match span {
            Span::Hour => &self.hour,
            Span::Day => &self.day,
        }
    }
}

/// Points of one length, the oldest first.
#[derive(Debug)]
struct Ring {
    /// In seconds.
    interval: u32,
    capacity: usize,
    /// The end of the last point, and the counts then.
    last: (UnixSeconds, Arc<Reading>),
    points: VecDeque<Point>,
}

impl Ring {
    fn new(interval: u32, capacity: usize, now: UnixSeconds, reading: &Arc<Reading>) -> Self {
        Self {
            interval,
            capacity,
            last: (now, Arc::clone(reading)),
            points: VecDeque::new(),
        }
    }

    /// Points end with multiples of the interval, as far as somebody looks then.
    fn is_due(&self, now: UnixSeconds) -> bool {
        now.as_u32() / self.interval != self.last.0.as_u32() / self.interval
    }

    fn add(&mut self, now: UnixSeconds, reading: &Arc<Reading>) {
        if !self.is_due(now) {
            return;
        }
        match now.as_u32().checked_sub(self.last.0.as_u32()) {
            Some(seconds) => {
                if self.points.len() == self.capacity {
                    self.points.pop_front();
                }
                let point = Point::between(&self.last.1, reading, now, seconds);
                self.points.push_back(point);
            }
            None => self.points.retain(|point| point.at <= now),
        }
        let oldest = now.as_u32().saturating_sub(self.span());
        self.points.retain(|point| point.at.as_u32() > oldest);
        self.last = (now, Arc::clone(reading));
    }

    fn span(&self) -> u32 {
        self.interval
            .saturating_mul(u32::try_from(self.capacity).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;
    use crate::metrics::Metrics;

    fn ends(history: &History, span: Span) -> Vec<(u32, u32)> {
        let points = history.ring(span).points.iter();
        points.map(|it| (it.at.as_u32(), it.seconds)).collect()
    }

    fn begin(at: u32) -> History {
        History::begin(UnixSeconds::new(at), Reading::default())
    }

    fn look(history: &mut History, at: u32) {
        let at = UnixSeconds::new(at);
        if history.is_due(at) {
            history.add(at, Reading::default());
        }
    }

    #[test]
    fn a_point_ends_when_somebody_looks_in_another_interval() {
        let mut history = begin(1003);
        for at in [1005, 1009, 1010, 1011, 1020, 1047, 1049] {
            look(&mut history, at);
        }
        assert_eq!(
            ends(&history, Span::Hour),
            [(1010, 7), (1020, 10), (1047, 27)]
        );
        assert_eq!(ends(&history, Span::Day), []);
        look(&mut history, 1200);
        assert_eq!(ends(&history, Span::Day), [(1200, 197)]);
    }

    #[test]
    fn an_hour_and_a_day_are_kept_and_no_more() {
        let mut history = begin(0);
        for at in (10..=100_000).step_by(10) {
            look(&mut history, at);
        }
        for (span, interval, count) in [(Span::Hour, 10, 360), (Span::Day, 300, 288)] {
            let ends = ends(&history, span);
            assert_eq!(ends.len(), count);
            assert!(ends.iter().all(|(_, seconds)| *seconds == interval));
            assert_eq!(ends[0].0 + interval * (count as u32 - 1), ends[count - 1].0);
        }
        // After a night without anybody who looked nothing of before is of the last hour.
        look(&mut history, 150_000);
        assert_eq!(ends(&history, Span::Hour), [(150_000, 50_000)]);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_back_what_it_has_not_reached() {
        let mut history = begin(1000);
        for at in [1010, 1020, 1030, 1015, 1020] {
            look(&mut history, at);
        }
        assert_eq!(ends(&history, Span::Hour), [(1010, 10), (1020, 5)]);
    }

    /// What docs/dashboard.md says of the memory.
    #[test]
    fn it_is_bounded() {
        let metrics = Metrics::default();
        let worker = metrics.add_worker();
        let recorder = crate::metrics::Recorder::new(worker);
        for number in 0..200 {
            for _ in 0..=number {
                recorder.record(&reading::tests::finished(&format!("/{number}")));
            }
        }
        let reading = Reading::of(&metrics, 0);
        let point = Point::between(&Reading::default(), &reading, UnixSeconds::new(10), 10);
        assert_eq!(point.routes.len(), point::MOST_NAMES + 1);
        assert_eq!(&*point.routes[0].0, "/199");
        let requests: u32 = point.routes.iter().map(|(_, it)| it.requests).sum();
        assert_eq!(requests, (1..=200).sum::<u32>());
        assert_eq!(point.total.requests, requests);
        let most = size_of::<Point>()
            + (point::MOST_NAMES + 1) * (size_of_val(&point.routes[0]) + point::SERVER_BYTES)
            + 64 * size_of_val(&point.refusals[0]);
        assert!(most * (360 + 288) < 6 * 1024 * 1024, "{most}");
    }
}
