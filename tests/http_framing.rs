//! Where a request ends: whatever two readers of one stream could read differently is refused, and nothing
//! behind it is served. A proxy in front of the server may be the other reader.

use crate::support::Server;
use crate::support::http::Http;

/// What a smuggler wants to have served: its answer would be the only one with this status.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

/// All answers to a request with another behind it; the connection must end by itself.
fn answers(server: &Server, request: &[u8]) -> Vec<u16> {
    let mut http = Http::connect(server.address);
    http.send([request, SMUGGLED.as_bytes()].concat());
    let rest = http.rest();
    let answers = rest.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    answers.map(|answer| answer[..3].parse().expect("a status")).collect()
}

#[test]
fn a_body_of_uncertain_length_is_refused() {
    let server = Server::start("[server]\nworkers = 1");
    for (headers, body, status) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n", 400),
        ("transfer-ENCODING: identity\r\ncontent-LENGTH: 0", "", 400),
        ("Content-Length: 0\r\nContent-Length: 35", "", 400),
        ("Content-Length: 0\r\nContent-Length: 0", "", 400),
        ("Content-Length: 0, 0", "", 400),
        ("Content-Length: 0,35", "", 400),
        ("Content-Length: +0", "", 400),
        ("Content-Length: -1", "", 400),
        ("Content-Length: 0 0", "", 400),
        ("Content-Length: 0x23", "", 400),
        ("Content-Length: 3_5", "", 400),
        ("Content-Length: 35.0", "", 400),
        ("Content-Length: 1e1", "", 400),
        ("Content-Length:", "", 400),
        ("Content-Length: \"0\"", "", 400),
        ("Content-Length: ٣", "", 400),
        ("Content-Length: 18446744073709551616", "", 413),
        ("Content-Length: 99999999999999999999999999999999999999999", "", 413),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", 411),
        ("Transfer-Encoding: cHuNkEd", "0\r\n\r\n", 411),
        ("Transfer-Encoding:\tchunked", "0\r\n\r\n", 411),
        ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n", 501),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 501),
        ("Transfer-Encoding: identity", "", 501),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked;x=y", "0\r\n\r\n", 501),
        ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n", 501),
        ("Transfer-Encoding:", "", 501),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n", 501),
        ("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding : chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding\t: chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding\u{b}: chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding:\r\n chunked", "0\r\n\r\n", 400),
        ("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("X: y\0Transfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("Content-Length : 35", "", 400),
        ("Content-Length\0: 35", "", 400),
        (" Content-Length: 35", "", 400),
        ("X: y\n\nGET / HTTP/1.1", "", 400),
    ] {
        let request = format!("POST /nope HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
        assert_eq!(answers(&server, request.as_bytes()), [status], "{headers:?}");
    }
    let old = "POST /nope HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(answers(&server, old.as_bytes()), [400]);
    assert_eq!(server.status().number("/workers/0/restarts"), 0);
}

#[test]
fn a_malformed_head_is_refused() {
    let server = Server::start("[server]\nworkers = 1");
    for (head, status) in [
        ("GET /nope HTTP/1.1\nHost: a\n\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("\nGET /nope HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\rHost: a\r\r", 400),
        ("GET /nope HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        (" GET /nope HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  /nope HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /no pe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\t/nope\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /no\0pe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G@T /nope HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope\r\n\r\n", 400),
        ("GET /nope http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("GET /nope HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /nope HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nÜ: z\r\n\r\n", 400),
        ("GET /nope HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", 400),
    ] {
        assert_eq!(answers(&server, head.as_bytes()), [status], "{head:?}");
    }
}

#[test]
fn a_target_and_a_host_mean_one_thing() {
    let server = Server::start("[server]\nworkers = 1");
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").into_bytes()
    };
    for (target, status) in [
        ("/nope", 404),
        ("http://a/nope", 404),
        ("HTTP://b:80/nope?x=//", 404),
        ("http://a", 200),
        ("http://a?x", 200),
        ("*", 400),
        ("a:80", 400),
        ("healthz", 400),
        ("http:/healthz", 400),
        ("http:///healthz", 400),
        ("http://user@a/healthz", 400),
        ("http://a b/healthz", 400),
        ("http://a:x/healthz", 400),
        ("ftp://a/healthz", 400),
        ("/healthz#part", 400),
        ("/./healthz", 400),
        ("/x/../healthz", 400),
        ("/x/%2e%2e/healthz", 400),
        ("/%2fhealthz", 400),
        ("/healthz%00", 400),
        ("/healthz%", 400),
        ("/healthz%0d%0aX: y", 400),
        ("/\\healthz", 400),
    ] {
        assert_eq!(answers(&server, &get(target, "Host: a\r\n")), [status], "{target:?}");
    }
    for host in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@a\r\n",
        "Host: a:80:80\r\n",
        "Host: a:x\r\n",
        "Host: [::1\r\n",
        "Host: [a]\r\n",
    ] {
        assert_eq!(answers(&server, &get("/nope", host)), [400], "{host:?}");
        assert_eq!(answers(&server, &get("http://a/nope", host)), [400], "{host:?}");
    }
    for method in ["CONNECT a:80", "CONNECT /nope"] {
        let request = format!("{method} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answers(&server, request.as_bytes()), [501], "{method}");
    }
}
