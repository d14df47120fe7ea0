//! What our processes send one another: packets of a mailbox, control messages, values of an application,
//! requests of the control socket. Any bytes; decoding asks for no more memory than its limit.
#![no_main]

use std::{alloc::System, collections::BTreeMap};

use cap::Cap;
use dunlin_server::{
    control::{ControlAnswer, ControlRequest},
    ipc::{
        check_control, check_packet,
        codec::{DECODE_LIMIT, decode_value, encode_value},
    },
};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a decode may need beside what its limit counts: its errors, what a growing list leaves behind, and
/// up to 1 MiB that serde sets aside for each list that is begun, one in another.
const SLACK_BYTES: usize = 4 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let most = ALLOCATOR.allocated() + DECODE_LIMIT + SLACK_BYTES;
    ALLOCATOR.set_limit(most).expect("the limit is above what is taken");
    match kind % 6 {
        0 => check_packet(bytes),
        1 => check_control(bytes),
        2 => check_value::<PipeMessage>(bytes),
        3 => check_value::<(u8, Option<String>, Result<Vec<u8>, char>)>(bytes),
        4 => check_control_request(bytes),
        _ => check_control_answer(bytes),
    }
    ALLOCATOR.set_limit(usize::MAX).expect("it is above what is taken");
});

/// A message as an application may have it.
#[derive(Serialize, Deserialize)]
enum PipeMessage {
    Text(String),
    Bytes(Vec<u8>),
    Numbers(Vec<(i64, u128, f64)>),
    Lists { lists: Vec<Vec<String>>, ordered: bool },
    Map(BTreeMap<String, Option<i32>>),
    Nothing,
}

/// What decodes is encoded, and decoded again, as the same. By its encoding, since a number need not equal
/// itself.
fn check_value<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode_value::<T>(bytes) else { return };
    let encoded = encode_value(&value).expect("it was decoded");
    let again = decode_value::<T>(&encoded).expect("it was encoded");
    assert_eq!(encode_value(&again).expect("it was decoded"), encoded);
}

fn check_control_request(line: &[u8]) {
    let Ok(request) = ControlRequest::from_line(line) else { return };
    let again = serde_json::to_vec(&request).expect("our own type");
    assert!(!again.contains(&b'\n'), "a request is one line");
    assert_eq!(ControlRequest::from_line(&again), Ok(request));
}

fn check_control_answer(line: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<ControlAnswer>(line) else { return };
    let again = serde_json::to_vec(&answer).expect("our own type");
    assert!(!again.contains(&b'\n'), "an answer is one line");
    let again: ControlAnswer = serde_json::from_slice(&again).expect("it was written by us");
    assert_eq!((again.ok, again.error), (answer.ok, answer.error));
}
