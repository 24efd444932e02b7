//! Loads and checks config.json and process.json, with oci-spec's types.

pub mod annotation;
pub mod defaults;
pub mod edit;
mod extensions;
mod field_path;
pub mod grant;
mod lenient;
mod load;
pub mod size;
mod validate;

pub use extensions::Extensions;
pub use grant::OperatorGrant;
pub use load::{Config, load, load_file, load_mounts, load_process, parse, parse_resources};
pub use validate::{has_namespace, validate, validate_process};

/// Version of the runtime specification that this code implements.
pub const OCI_VERSION: &str = "1.3.0";
