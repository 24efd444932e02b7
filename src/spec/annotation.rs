//! The annotations that aril itself understands. All start with `io.aril.`; every other one is the
//! caller's own and only passed through, to `state` and to hooks.

use oci_spec::runtime::Spec;

/// The value of one annotation, if the config has it.
pub fn value<'a>(spec: &'a Spec, key: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(key).map(String::as_str)
}

/// Gives an annotation its value, in place of the one that was there: how an option of `run` says what
/// the annotation of the same meaning would.
pub fn set(spec: &mut Spec, key: &str, value: impl Into<String>) {
    let mut annotations = spec.annotations_mut().take().unwrap_or_default();
    annotations.insert(key.to_owned(), value.into());
    spec.set_annotations(Some(annotations));
}

#[cfg(test)]
mod tests {
    use super::{set, value};
    use oci_spec::runtime::Spec;

    #[test]
    fn the_last_value_stands() {
        let mut spec = Spec::default();
        assert_eq!(value(&spec, "io.aril.x"), None);
        set(&mut spec, "io.aril.x", "1");
        set(&mut spec, "io.aril.x", "2");
        assert_eq!(value(&spec, "io.aril.x"), Some("2"));
    }
}
