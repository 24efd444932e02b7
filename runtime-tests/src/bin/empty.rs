//! A program that does nothing: what any command costs before its first line.

fn main() {}
