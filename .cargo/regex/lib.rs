//! regex-lite under the name of its big sister, whose interface it shares.

pub use regex_lite::*;
