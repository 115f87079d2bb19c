//! Pure: the steps of either process. A test explores them together, with every failure at every moment.

/// The old process, which has the state until it is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Giving {
    /// The new one is being started.
    Starting,
    /// It was offered the sockets and opens what it needs.
    Opening,
    /// It has all that it needs; changes in flight are awaited, and new ones wait.
    Freezing,
    /// The state is sent, and loaded there.
    Sending,
    /// It was told that it may serve.
    Committing,
    /// It serves: for good.
    HandedOver,
    /// It failed, and must be dead before this one changes anything.
    Fencing,
    /// This one goes on as if nothing had happened.
    Resumed,
}

/// What the old process learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    Hello,
    Ready,
    /// Nothing changes any more.
    Frozen,
    Loaded,
    Serving,
    /// The link broke, the deadline passed, or something was said that makes no sense.
    Trouble,
    /// The new process is certainly dead, and had not said that it serves.
    Dead,
}

impl Giving {
    /// The next step.
    pub(crate) fn on(self, heard: Heard) -> Self {
        match (self, heard) {
            (Self::Starting, Heard::Hello) => Self::Opening,
            (Self::Opening, Heard::Ready) => Self::Freezing,
            (Self::Freezing, Heard::Frozen) => Self::Sending,
            (Self::Sending, Heard::Loaded) => Self::Committing,
            (Self::Committing, Heard::Serving) => Self::HandedOver,
            (Self::Fencing, Heard::Dead) => Self::Resumed,
            // It is over, whatever else is heard.
            (over @ (Self::HandedOver | Self::Resumed), _) => over,
            // What comes out of turn is trouble too.
            (
                Self::Starting
                | Self::Opening
                | Self::Freezing
                | Self::Sending
                | Self::Committing
                | Self::Fencing,
                _,
            ) => Self::Fencing,
        }
    }

    /// Whether tokens and claims may change in this process.
    #[cfg(test)]
    fn may_change(self) -> bool {
        matches!(self, Self::Starting | Self::Opening | Self::Resumed)
    }
}

/// The new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Taking {
    /// It reads its configuration and opens what it needs.
    Opening,
    /// It waits for the state.
    Waiting,
    /// It has the state, and everything runs but the listeners.
    Loaded,
    /// It serves.
    Serving,
    /// It ends, without having accepted one connection.
    GivenUp,
}

/// What the new process learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Noted {
    /// Everything is open.
    Opened,
    /// All of the state is there, and its digest is right.
    State,
    /// The old one says that it may serve.
    Yours,
    /// Anything else.
    Trouble,
}

impl Taking {
    /// The next step.
    pub(crate) fn on(self, noted: Noted) -> Self {
        match (self, noted) {
            (Self::Opening, Noted::Opened) => Self::Waiting,
            (Self::Waiting, Noted::State) => Self::Loaded,
            (Self::Loaded, Noted::Yours) => Self::Serving,
            // The old one may be gone: this one has all.
            (Self::Serving, _) => Self::Serving,
            (Self::Opening | Self::Waiting | Self::Loaded | Self::GivenUp, _) => Self::GivenUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    /// What is under way on the link, and both ends of it.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct World {
        old: Giving,
        new: Taking,
        is_new_alive: bool,
        to_old: VecDeque<Heard>,
        to_new: VecDeque<Noted>,
        /// Whether the new one has accepted a connection.
        has_accepted: bool,
    }

    impl World {
        fn begin() -> Self {
            Self {
                old: Giving::Starting,
                new: Taking::Opening,
                is_new_alive: true,
                to_old: [Heard::Hello].into(),
                to_new: VecDeque::new(),
                has_accepted: false,
            }
        }

        fn old_hears(&self, heard: Heard) -> Self {
            let mut next = self.clone();
            next.old = self.old.on(heard);
            match (self.old, next.old) {
                (before, after) if before == after => {}
                (_, Giving::Opening) => next.to_new.push_back(Noted::Opened),
                (_, Giving::Sending) => next.to_new.push_back(Noted::State),
                (_, Giving::Committing) => next.to_new.push_back(Noted::Yours),
                (
                    _,
                    Giving::Starting
                    | Giving::Freezing
                    | Giving::HandedOver
                    | Giving::Fencing
                    | Giving::Resumed,
                ) => {}
            }
            next
        }

        fn new_notes(&self, noted: Noted) -> Self {
            let mut next = self.clone();
            next.new = self.new.on(noted);
            match (self.new, next.new) {
                (before, after) if before == after => {}
                (_, Taking::Waiting) => next.to_old.push_back(Heard::Ready),
                (_, Taking::Loaded) => next.to_old.push_back(Heard::Loaded),
                // First it says so.
                (_, Taking::Serving) => next.to_old.push_back(Heard::Serving),
                (_, Taking::GivenUp) => next.is_new_alive = false,
                (_, Taking::Opening) => {}
            }
            next
        }

        /// Everything that can happen next.
        fn successors(&self) -> Vec<Self> {
            let mut next = Vec::new();
            if self.is_new_alive {
                if let Some(noted) = self.to_new.front().copied() {
                    let mut taken = self.clone();
                    taken.to_new.pop_front();
                    next.push(taken.new_notes(noted));
                }
                if self.new != Taking::Serving {
                    next.push(self.new_notes(Noted::Trouble));
                } else {
                    next.push(Self {
                        has_accepted: true,
                        ..self.clone()
                    });
                }
                // It is killed by somebody.
                next.push(Self {
                    is_new_alive: false,
                    ..self.clone()
                });
            }
            if self.old == Giving::Freezing {
                next.push(self.old_hears(Heard::Frozen));
            }
            if let Some(heard) = self.to_old.front().copied() {
                let mut taken = self.clone();
                taken.to_old.pop_front();
                // While it is killed, what it says is heard at the end alone.
                if self.old != Giving::Fencing {
                    next.push(taken.old_hears(heard));
                }
            } else if !self.is_new_alive {
                next.push(self.old_hears(Heard::Trouble));
            }
            match self.old {
                Giving::HandedOver | Giving::Resumed => {}
                Giving::Fencing => {
                    // It is killed, what it had said is read to the end, and it is dead.
                    let said = self.to_old.contains(&Heard::Serving);
                    let mut dead = Self {
                        is_new_alive: false,
                        to_old: VecDeque::new(),
                        ..self.clone()
                    };
                    dead.old = match said {
                        // The moment between its word and the kill.
                        true => Giving::Resumed,
                        false => self.old.on(Heard::Dead),
                    };
                    next.push(dead);
                }
                // The deadline passes.
                Giving::Starting
                | Giving::Opening
                | Giving::Freezing
                | Giving::Sending
                | Giving::Committing => next.push(self.old_hears(Heard::Trouble)),
            }
            next
        }
    }

    #[test]
    fn whatever_fails_at_whatever_moment_one_process_has_the_state_and_one_serves() {
        let mut seen = HashSet::new();
        let mut left = vec![World::begin()];
        while let Some(world) = left.pop() {
            if !seen.insert(world.clone()) {
                continue;
            }
            // Never two that change it.
            if world.is_new_alive && world.new == Taking::Serving {
                assert!(!world.old.may_change(), "{world:?}");
            }
            // It does not resume while the other lives.
            if world.old == Giving::Resumed {
                assert!(!world.is_new_alive, "{world:?}");
            }
            if world.has_accepted {
                assert_eq!(world.new, Taking::Serving);
            }
            if world.old == Giving::HandedOver {
                assert_eq!(world.new, Taking::Serving, "{world:?}");
            }
            let next = world.successors();
            if next.is_empty() {
                // It ends with one that serves, or one that did and was killed by somebody else.
                let is_over = matches!(world.old, Giving::HandedOver | Giving::Resumed);
                assert!(is_over, "{world:?}");
            }
            left.extend(next);
        }
        assert!(seen.len() > 40, "{}", seen.len());
        let ends: HashSet<_> = seen.iter().map(|world| world.old).collect();
        assert_eq!(ends.len(), 8);
    }
}
