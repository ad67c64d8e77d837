//! A node that answers from a script and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// One answer of the script.
pub(crate) struct Response {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// An answer with status 200.
pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Response {
    status("200 OK", body)
}

/// An answer with any status.
pub(crate) fn status(status: &'static str, body: impl Into<Vec<u8>>) -> Response {
    Response {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

/// A redirect.
pub(crate) fn moved(location: String) -> Response {
    let answer = status("301 Moved Permanently", "");
    Response {
        headers: vec![format!("Location: {location}")],
        ..answer
    }
}

/// What the shell asked.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    /// In lower case, as sent.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// The running server.
pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Asked>>,
}

impl Server {
    /// Answers with the script in order, then with 500 for ever.
    pub(crate) fn start(script: Vec<Response>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut script = script.into_iter();
            let mut asked = Vec::new();
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                asked.push(read_request(&stream));
                let answer = script
                    .next()
                    .unwrap_or_else(|| status("500 Internal Server Error", "script is over"));
                write_answer(&stream, &answer);
            }
            asked
        });
        Server { port, stop, thread }
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the server; everything that it was asked, in order.
    pub(crate) fn stop(self) -> Vec<Asked> {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.host()));
        self.thread.join().unwrap()
    }

    /// [`Server::stop`], with only the request lines.
    pub(crate) fn stop_for_lines(self) -> Vec<String> {
        self.stop().into_iter().map(|asked| asked.line).collect()
    }
}

fn read_request(stream: &TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut headers: Vec<String> = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.trim().split_once(": ").unwrap();
        headers.push(format!("{}: {value}", name.to_ascii_lowercase()));
    }
    let length = headers
        .iter()
        .find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Asked {
        line,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn write_answer(mut stream: &TcpStream, answer: &Response) {
    let headers: String = answer
        .headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let head = format!(
        "HTTP/1.1 {}\r\nX-RQLITE-VERSION: v10.0.0\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        answer.status,
        answer.body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&answer.body).unwrap();
}
