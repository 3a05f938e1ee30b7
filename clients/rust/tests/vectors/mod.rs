//! The wire vectors, which are read and written again in both forms. The generated types have the binary form alone: the JSON form is read
//! and written by prost-reflect, which knows the types by their descriptors.

use std::fs;
use std::path::Path;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Deserializer, Value};

/// Made with the stubs, by `make proto`.
const DESCRIPTORS: &[u8] = include_bytes!("../../src/gen/descriptors.binpb");

/// Checks every vector of the folder.
pub fn check(folder: &Path) {
    let types = DescriptorPool::decode(DESCRIPTORS).expect("a descriptor set");
    let index = parsed(&fs::read(folder.join("index.json")).expect("the index"));
    let vectors = index.as_array().expect("a list");
    assert!(vectors.len() >= 50, "there are only {} vectors", vectors.len());
    for vector in vectors {
        let (name, full_name) = (vector["name"].as_str().expect("a name"), vector["type"].as_str().expect("a type"));
        let of_type = types.get_message_by_name(full_name).expect("a type of the contract");
        let binary = fs::read(folder.join(format!("{name}.binpb"))).expect("the binary form");
        let json = fs::read(folder.join(format!("{name}.json"))).expect("the JSON form");

        let again = written_again(full_name, &binary);
        assert_eq!(again, binary, "{name}");
        assert_eq!(binary_of(of_type.clone(), &json), binary, "{name}, from JSON");
        assert_eq!(parsed(&json_of(of_type, &again)), parsed(&json), "{name}, to JSON");
    }
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

fn binary_of(of_type: MessageDescriptor, json: &[u8]) -> Vec<u8> {
    let mut reader = Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize(of_type, &mut reader).expect("a message");
    reader.end().expect("nothing more");
    message.encode_to_vec()
}

fn json_of(of_type: MessageDescriptor, binary: &[u8]) -> Vec<u8> {
    let message = DynamicMessage::decode(of_type, binary).expect("a message");
    serde_json::to_vec(&message).expect("JSON")
}

/// Reads a message as the generated type, and writes it.
fn written_again(full_name: &str, binary: &[u8]) -> Vec<u8> {
    macro_rules! of_type {
        ($($name:ident),*) => {
            match full_name.strip_prefix("headrace.v1.").expect("a type of headrace.v1") {
                $(stringify!($name) => headrace::v1::$name::decode(binary).expect("a message").encode_to_vec(),)*
                other => panic!("add {other} to the list"),
            }
        };
    }
    of_type!(
        ChatMessage,
        CheckProviderResponse,
        CreateProviderRequest,
        ExplainGenerationResponse,
        GenerateRequest,
        GenerateResponse,
        GenerationEvent,
        GetProviderResponse,
        GetRequestResponse,
        GetUsageRequest,
        GetUsageResponse,
        ListQuotasResponse,
        ListRequestsRequest,
        ListSuccessRatesResponse,
        ProviderError,
        StreamGenerateRequest,
        StreamGenerateResponse,
        SubmitGenerationResponse,
        UpdateProviderRequest,
        WatchRequestResponse
    )
}
