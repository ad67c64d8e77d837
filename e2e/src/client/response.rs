//! Reads one HTTP/1.1 reply and keeps it exactly as received.
use std::io::{self, Read};

/// Limit for a reply's head, in bytes; a larger one is treated as an error.
const MAX_HEAD: usize = 64 * 1024;

/// A complete reply.
#[derive(Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header names and values as received, in order.
    pub headers: Vec<(String, String)>,
    /// The body without any transfer coding.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {:?}", self.status, self.text())
    }
}

impl Reply {
    /// Value of the first header with this name, ignoring case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text; invalid UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the server closes the connection after this reply.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || !self.is_framed()
    }

    fn is_framed(&self) -> bool {
        self.header("content-length").is_some()
            || self.header("transfer-encoding").is_some()
            || self.is_bodiless()
    }

    fn is_bodiless(&self) -> bool {
        self.status == 204 || self.status == 304
    }
}

/// Reads the reply to a request with this method.
pub(super) fn read(stream: &mut impl Read, method: &str) -> io::Result<Reply> {
    let mut buffer = Vec::new();
    let mut reply = loop {
        let reply = read_head(stream, &mut buffer)?;
        // Interim replies (100 Continue) precede the final one.
        if reply.status >= 200 {
            break reply;
        }
    };
    if method == "HEAD" || reply.is_bodiless() {
        return Ok(reply);
    }
    let chunked = reply
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = reply
        .header("content-length")
        .map(str::parse::<usize>)
        .transpose()
        .map_err(malformed)?;
    reply.body = match (chunked, length) {
        (true, _) => read_chunks(stream, &mut buffer)?,
        (false, Some(length)) => take(stream, &mut buffer, length)?,
        (false, None) => {
            stream.read_to_end(&mut buffer)?;
            buffer
        }
    };
    Ok(reply)
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads up to the blank line; what follows stays in `buffer`.
fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Reply> {
    let end = fill_until(stream, buffer, b"\r\n\r\n")?;
    let rest = buffer.split_off(end + 4);
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    *buffer = rest;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .parse()
        .map_err(malformed)?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Reply {
        status,
        headers,
        body: Vec::new(),
    })
}

fn read_chunks(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = fill_until(stream, buffer, b"\r\n")?;
        let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 2);
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(malformed)?;
        let chunk = take(stream, buffer, size + 2)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Position of `mark` in `buffer`, after reading as much as needed.
fn fill_until(stream: &mut impl Read, buffer: &mut Vec<u8>, mark: &[u8]) -> io::Result<usize> {
    let mut from = 0;
    loop {
        if let Some(found) = buffer[from..]
            .windows(mark.len())
            .position(|window| window == mark)
        {
            return Ok(from + found);
        }
        if buffer.len() > MAX_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "endless reply head",
            ));
        }
        from = buffer.len().saturating_sub(mark.len() - 1);
        fill(stream, buffer)?;
    }
}

fn take(stream: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while buffer.len() < length {
        fill(stream, buffer)?;
    }
    let rest = buffer.split_off(length);
    Ok(std::mem::replace(buffer, rest))
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    // A read with a timeout is interrupted when the process is stopped and continued, even without a signal
    // handler.
    let read = loop {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffer.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}
