//! Fixtures shared by the black-box tests and the benchmarks.
