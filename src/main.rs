//! The `syncgate` program.

fn main() {}
