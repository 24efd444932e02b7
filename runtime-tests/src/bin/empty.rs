//! A program that does nothing: the cost of any command before its first line.

fn main() {}
