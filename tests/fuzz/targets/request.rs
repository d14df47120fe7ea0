//! HTTP requests, pipelined: the same requests wherever reads cut the stream, and whatever is taken can be
//! understood in one way only.
#![no_main]

use dunlin_fuzz::{BYTEWISE_MAX, cuts_and_stream, reads};
use dunlin_server::http::{
    HttpLimits, OriginPolicy, Refusal, Request, check_upgrade, encode_refusal, encode_response,
    encode_switching, parse_request, wants_upgrade,
};
use dunlin_server::websocket::Agreement;
use libfuzzer_sys::fuzz_target;

/// Small, so that inputs of a fuzzer reach them.
const LIMITS: HttpLimits = HttpLimits { max_head_bytes: 400, max_headers: 12, max_body_bytes: 64 };

fuzz_target!(|input: &[u8]| {
    let (cuts, stream) = cuts_and_stream(input);
    let whole = RequestReader::behind([stream]);
    assert_eq!(RequestReader::behind(reads(cuts, stream)), whole, "cut by {cuts:?}");
    if stream.len() <= BYTEWISE_MAX {
        assert_eq!(RequestReader::behind(stream.chunks(1)), whole, "cut at every byte");
    }
    let mut rest = stream;
    for (request, taken) in &whole.requests {
        let (bytes, behind) = rest.split_at(*taken);
        rest = behind;
        check_bounds(request, bytes);
        check_unambiguous(request, bytes);
        check_printed(request);
        check_answers(request);
    }
    if let Some(refusal) = &whole.refusal {
        let mut answer = Vec::new();
        encode_refusal(&mut answer, refusal, false, false);
        check_answer(&answer, refusal.status);
    }
});

/// Reads a stream as a worker does, up to an upgrade: what follows one is no HTTP.
#[derive(Debug, Default, PartialEq, Eq)]
struct RequestReader {
    input: Vec<u8>,
    requests: Vec<(Request, usize)>,
    refusal: Option<Refusal>,
    upgraded: bool,
}

impl RequestReader {
    fn behind<'s>(reads: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let mut reader = Self::default();
        for read in reads {
            reader.input.extend_from_slice(read);
            reader.take_requests();
        }
        reader
    }

    fn take_requests(&mut self) {
        while self.refusal.is_none() && !self.upgraded {
            match parse_request(&self.input, &LIMITS) {
                Ok(None) => return,
                Ok(Some((request, taken))) => {
                    self.input.drain(..taken);
                    self.upgraded = wants_upgrade(&request);
                    self.requests.push((request, taken));
                }
                Err(refusal) => self.refusal = Some(refusal),
            }
        }
    }
}

fn check_bounds(request: &Request, bytes: &[u8]) {
    assert!(request.headers.len() <= LIMITS.max_headers);
    assert!(request.body.len() <= LIMITS.max_body_bytes);
    assert!(bytes.len() - request.body.len() <= LIMITS.max_head_bytes);
    assert!(bytes.ends_with(&request.body));
}

/// No other reader can find another end of the request, another host or another path.
fn check_unambiguous(request: &Request, bytes: &[u8]) {
    let head = &bytes[..bytes.len() - request.body.len()];
    let blank = head.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let head = &head[blank..];
    let ends = |end: usize| head[..end].ends_with(b"\n\n") || head[..end].ends_with(b"\n\r\n");
    assert!(ends(head.len()) && !(0..head.len()).any(ends), "another end of the head");
    assert!(head.iter().all(|byte| *byte >= b' ' || b"\t\r\n".contains(byte)), "a control byte");
    let bare = head.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n');
    assert!(!bare, "a return without a line feed");

    // The lines as a careless reader sees them: any blanks around names.
    let text = String::from_utf8_lossy(head);
    let named = |name: &str| {
        let names = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        names.filter(|(other, _)| other.trim().eq_ignore_ascii_case(name)).collect::<Vec<_>>()
    };
    assert!(named("transfer-encoding").is_empty());
    match named("content-length").as_slice() {
        [] => assert!(request.body.is_empty()),
        [(name, length)] => {
            assert_eq!(name.trim(), *name);
            assert_eq!(length.trim().parse(), Ok(request.body.len()));
        }
        several => panic!("{several:?}"),
    }
    assert!(named("host").len() == 1 || (request.http_minor == 0 && named("host").is_empty()));
    assert!(text.lines().skip(1).all(|line| !line.starts_with([' ', '\t'])), "a folded line");

    assert!(request.path.starts_with('/') || (request.path == "*" && request.method == "OPTIONS"));
    assert!(!request.path.contains(|c: char| c.is_control() || c == '\\'));
    assert!(!request.path.split('/').any(|segment| segment == "." || segment == ".."));
}

/// What was understood, said again, is understood as the same.
fn check_printed(request: &Request) {
    let Request { method, target, headers, body, http_minor, .. } = request;
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{method} {target} HTTP/1.{http_minor}\r\n{lines}\r\n");
    let printed = [head.as_bytes(), body, b"GET"].concat();
    // Lossy values and added blanks may make it longer than what came.
    let limits = HttpLimits { max_head_bytes: 4 * LIMITS.max_head_bytes, ..LIMITS };
    match parse_request(&printed, &limits) {
        Ok(Some((again, taken))) => {
            assert_eq!(again, *request);
            assert_eq!(taken, head.len() + body.len());
        }
        other => panic!("{other:?} from {:?}", String::from_utf8_lossy(&printed)),
    }
}

/// No header of a request breaks out of its line when an application puts it into an answer.
fn check_answers(request: &Request) {
    let echoed: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(request.query_pairs())
        .chain(request.cookies().into_iter().map(|(name, value)| (name.into(), value.into())))
        .collect();
    let mut answer = Vec::new();
    encode_response(&mut answer, 200, &echoed, &request.body, request.keep_alive, false);
    let (lengths, body) = check_answer(&answer, 200);
    assert_eq!((lengths, body), (vec![request.body.len().to_string()], request.body.clone()));

    check_origin(request);
    match check_upgrade(request) {
        Ok(upgrade) => {
            answer.clear();
            let chosen = upgrade.subprotocols.first().map(String::as_str);
            let offers = request.headers.all("sec-websocket-extensions");
            let agreed = Agreement::negotiate(offers).map(|(_, answer)| answer);
            encode_switching(&mut answer, &upgrade.key, chosen, agreed.as_deref(), &echoed);
            assert_eq!(check_answer(&answer, 101), (vec![], vec![]));
        }
        Err(refusal) => assert!(refusal.status >= 400),
    }
}

/// A page that passes as one of the same host names that host, and no other port where both name one.
fn check_origin(request: &Request) {
    let host = request.headers.first("host");
    let policy = OriginPolicy::SameHostOrNone { allow_loopback: false };
    let Some(origin) = request.headers.first("origin").filter(|&it| policy.allows(Some(it), host))
    else {
        return;
    };
    let (_, origin) = origin.split_once("://").expect("it has a scheme");
    let (origin, port) = host_and_port(origin);
    let (host, other) = host_and_port(host.expect("there is a host to be at"));
    assert_eq!(origin, host);
    assert!(port == other || port.is_none() || other.is_none(), "{port:?} is not {other:?}");
}

fn host_and_port(authority: &str) -> (String, Option<u16>) {
    let name_end = authority.rfind(']').unwrap_or_default();
    let (host, port) = match authority[name_end..].split_once(':') {
        Some((_, port)) => {
            let host = &authority[..authority.len() - port.len() - 1];
            let number = || port.parse().expect("a port is a number");
            (host, (!port.is_empty()).then(number))
        }
        None => (authority, None),
    };
    (host.to_ascii_lowercase(), port)
}

/// Another reader takes an answer whole. Gives its `Content-Length` lines and its body.
fn check_answer(answer: &[u8], status: u16) -> (Vec<String>, Vec<u8>) {
    let mut lines = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Response::new(&mut lines);
    let Ok(httparse::Status::Complete(head)) = parsed.parse(answer) else {
        panic!("no answer: {:?}", String::from_utf8_lossy(answer));
    };
    assert_eq!(parsed.code, Some(status));
    let named = |name: &'static str| {
        let lines = parsed.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| String::from_utf8_lossy(line.value).into_owned()).collect::<Vec<_>>()
    };
    assert!(named("transfer-encoding").is_empty());
    assert_eq!(named("connection").len(), 1);
    (named("content-length"), answer[head..].to_vec())
}
