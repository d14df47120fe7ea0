//! Property of HTTP on a connection that is kept open: a stream of pipelined requests is the same requests,
//! and ends in the same refusal, wherever reads cut it.

use dunlin_server::http::{HttpLimits, Refusal, Request, parse_request, wants_upgrade};
use proptest::{collection::vec, option, prelude::*, sample::Index};

/// Small, so that streams reach them.
const LIMITS: HttpLimits = HttpLimits { max_head_bytes: 300, max_headers: 8, max_body_bytes: 40 };

/// How a stream went.
#[derive(Debug, Default, PartialEq)]
struct Reader {
    /// What is not served yet, also what follows an upgrade.
    input: Vec<u8>,
    requests: Vec<Request>,
    refusal: Option<Refusal>,
    upgraded: bool,
}

impl Reader {
    /// Reads as a worker does: what is left stays in front of the next read, an upgrade ends HTTP.
    fn behind<'s>(reads: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let mut reader = Self::default();
        for read in reads {
            reader.input.extend_from_slice(read);
            while reader.refusal.is_none() && !reader.upgraded {
                match parse_request(&reader.input, &LIMITS) {
                    Ok(None) => break,
                    Ok(Some((request, taken))) => {
                        reader.input.drain(..taken);
                        reader.upgraded = wants_upgrade(&request);
                        reader.requests.push(request);
                    }
                    Err(refusal) => reader.refusal = Some(refusal),
                }
            }
        }
        reader
    }

    fn cut(stream: &[u8], cuts: &[Index]) -> Self {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut from = 0;
        Self::behind(cuts.into_iter().chain([stream.len()]).map(|to| {
            let read = &stream[from..to];
            from = to;
            read
        }))
    }
}

/// The bytes of a request that is right by itself, and its body.
fn request() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let blank = prop::sample::select(vec!["", "\r\n", "\r\n\r\n"]);
    let lines = vec("[A-Za-z]{1,6}: ?[ -~]{0,20}", 0..4);
    (blank, "(GET|POST|HEAD)", "/[a-z]{0,9}", lines, option::of(vec(any::<u8>(), 0..40))).prop_map(
        |(blank, method, path, lines, body)| {
            let mut head = format!("{blank}{method} {path} HTTP/1.1\r\nHost: a\r\n");
            lines.iter().for_each(|line| head += &format!("X-{line}\r\n"));
            if let Some(body) = &body {
                head += &format!("Content-Length: {}\r\n", body.len());
            }
            let body = body.unwrap_or_default();
            ([head.as_bytes(), b"\r\n", &body].concat(), body)
        },
    )
}

/// What ends a stream of requests: nothing, half a request, an upgrade with frames behind it, a refusal.
fn ending() -> impl Strategy<Value = Vec<u8>> {
    let ends: &[&[u8]] = &[
        b"",
        b"GET /half HTTP/1.1\r\nHo",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x81\x80\0\0\0\0GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTX/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"\0GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 41\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\na:b\r\na:b\r\na:b\r\na:b\r\na:b\r\na:b\r\na:b\r\na:b\r\nHost: a\r\n\r\n",
    ];
    let long = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 300]].concat();
    prop_oneof![
        4 => prop::sample::select(ends).prop_map(<[u8]>::to_vec),
        1 => Just(long),
        1 => Just(vec![b'A'; 301]),
    ]
}

proptest! {
    #[test]
    fn pipelined_requests_are_the_same_wherever_they_are_cut(
        requests in vec(request(), 0..5), ending in ending(), cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut stream = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect::<Vec<u8>>();
        stream.extend_from_slice(&ending);
        let whole = Reader::behind([stream.as_slice()]);
        prop_assert_eq!(&Reader::cut(&stream, &cuts), &whole);
        prop_assert_eq!(&Reader::behind(stream.chunks(1)), &whole);
        // Nothing is taken from the next request, and nothing left to it.
        prop_assert!(whole.requests.len() >= requests.len());
        for (request, (_, body)) in whole.requests.iter().zip(&requests) {
            prop_assert_eq!(&request.body, body);
        }
    }

    #[test]
    fn damaged_requests_fail_the_same_wherever_they_are_cut(
        requests in vec(request(), 1..4), cuts in vec(any::<Index>(), 0..12),
        damage in vec((any::<Index>(), any::<u8>()), 1..4), end in any::<Index>(),
    ) {
        let mut stream = requests.into_iter().flat_map(|(bytes, _)| bytes).collect::<Vec<u8>>();
        damage.into_iter().for_each(|(at, byte)| *at.get_mut(&mut stream) = byte);
        stream.truncate(end.index(stream.len() + 1));
        let whole = Reader::behind([stream.as_slice()]);
        prop_assert_eq!(&Reader::cut(&stream, &cuts), &whole);
        prop_assert_eq!(&Reader::behind(stream.chunks(1)), &whole);
    }
}
