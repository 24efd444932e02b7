//! Decodes the request that `start` reads from stdin, and encodes the answer in the form of the request.

use super::flags::Flags;
use super::status::Status;
use super::wire::{Any, Message, Writer};

/// Version in a JSON answer. containerd 1.7 rejects any other; 2.0 to 2.2, which send the same request, accept 2 and 3.
/// `MAX_SHIM_VERSION` does not tell them apart: every release sets it to 2.
const JSON_VERSION: u64 = 2;
/// Version in a protobuf answer. With 3, containerd connects the containers of a sandbox to the sandbox's shim
/// without another `start`.
const PROTOBUF_VERSION: u64 = 3;

/// Form of the request and of the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Before containerd 1.7: only an address.
    Address,
    /// containerd 1.7 to 2.2.
    Json,
    /// Since containerd 2.3.
    Protobuf,
}

/// Request of `start`.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRequest {
    pub form: Form,
    /// Options of the runtime, if the request has any.
    pub options: Option<Any>,
    /// Directory for sockets; empty if the request names none.
    pub socket_dir: String,
}

impl StartRequest {
    /// Decodes the request. `grpc`: GRPC_ADDRESS is set, which daemons do since they read JSON.
    ///
    /// # Errors
    ///
    /// The bytes are no protobuf message.
    pub fn parse(stdin: &[u8], flags: &Flags, grpc: bool) -> Result<Self, Status> {
        let message = Message::parse(stdin)?;
        // Options decode as parameters, too: their type and value would be id and namespace.
        let named = message.bytes(1) == flags.id.as_bytes()
            && message.bytes(2) == flags.namespace.as_bytes();
        if named {
            let options = message.all(8).find_map(options_of);
            let socket_dir = message.text(9)?.to_owned();
            return Ok(Self { form: Form::Protobuf, options, socket_dir });
        }
        let form = if grpc { Form::Json } else { Form::Address };
        let options = if stdin.is_empty() { None } else { Some(Any::parse(stdin)?) };
        Ok(Self { form, options, socket_dir: String::new() })
    }

    /// Returns the reply with the shim's address.
    pub fn answer(&self, address: &str) -> Vec<u8> {
        match self.form {
            Form::Address => address.as_bytes().to_vec(),
            Form::Json => {
                // The address is a path made by the shim, and contains no character to escape.
                format!(r#"{{"version":{JSON_VERSION},"address":"{address}","protocol":"ttrpc"}}"#)
                    .into_bytes()
            }
            Form::Protobuf => Writer::new()
                .number(1, PROTOBUF_VERSION)
                .bytes(2, address)
                .bytes(3, "ttrpc")
                .finish(),
        }
    }
}

/// Returns the runtime's options from an extension.
fn options_of(wrapped: &[u8]) -> Option<Any> {
    let any = Any::parse(Message::parse(wrapped).ok()?.bytes(1)).ok()?;
    any.type_url.ends_with("Options").then_some(any)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(stdin: &[u8], grpc: bool) -> StartRequest {
        let words = ["-namespace", "ns", "-id", "i", "start"].map(OsString::from);
        StartRequest::parse(stdin, &Flags::parse(&words).unwrap(), grpc).unwrap()
    }

    #[test]
    fn all_three_forms() {
        let any = Any::new("containerd.runc.v1.Options", *b"\x1a\x02/c");
        let old = parse(&any.writer().finish(), false);
        assert_eq!((&old.form, &old.options), (&Form::Address, &Some(any.clone())));
        assert_eq!(old.answer("unix:///s"), b"unix:///s");

        let json = parse(b"", true);
        assert_eq!((&json.form, &json.options), (&Form::Json, &None));
        let text = json.answer("unix:///s");
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["version"], 2, "containerd 1.7 rejects 3");
        assert_eq!((&value["address"], &value["protocol"]), (&"unix:///s".into(), &"ttrpc".into()));

        let negative_level = u64::MAX - 7;
        let parameters = Writer::new()
            .bytes(1, "i")
            .bytes(2, "ns")
            .number(3, negative_level)
            .message(8, Writer::new().any(1, &Any::new("other", *b"x")))
            .message(8, Writer::new().any(1, &any))
            .bytes(9, "/run/s")
            .finish();
        let new = parse(&parameters, true);
        assert_eq!((&new.form, new.options.as_ref()), (&Form::Protobuf, Some(&any)));
        assert_eq!(new.socket_dir, "/run/s");
        let answer = new.answer("unix:///s");
        let message = Message::parse(&answer).unwrap();
        assert_eq!(
            (message.number(1), message.text(2), message.text(3)),
            (3, Ok("unix:///s"), Ok("ttrpc"))
        );
    }

    #[test]
    fn options_are_no_parameters() {
        let any = Any::new("containerd.runc.v1.Options", *b"x");
        assert_eq!(parse(&any.writer().finish(), true).form, Form::Json);
    }
}
