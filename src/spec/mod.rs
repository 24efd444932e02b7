//! config.json and process.json: loaded over oci-spec's types, then checked.

pub mod annotation;
pub mod edit;
mod extensions;
pub mod grant;
mod lenient;
mod load;
mod place;
pub mod sandbox;
pub mod size;
mod validate;

pub use extensions::Extensions;
pub use grant::OperatorGrant;
pub use load::{Config, load, load_file, load_mounts, load_process, parse, parse_resources};
pub use validate::{has_namespace, validate, validate_process};

/// The version of the runtime specification that this code was written against.
pub const OCI_VERSION: &str = "1.3.0";
