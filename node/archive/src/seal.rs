//! Encryption of objects of any size, in constant memory.
//!
//! ```text
//! in clear, authenticated by every chunk:
//!   "RQSEALED" 1 <length of the key's id> <key's id> <19 random bytes>
//! chunks, each:
//!   4 bytes (the length of its plaintext; highest bit: the last chunk), ciphertext, 16 bytes of tag
//! ```
//!
//! XChaCha20-Poly1305 in the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, “Online
//! Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance”, CRYPTO 2015): the nonce is the random
//! bytes, the chunk's number and whether it is the last. So chunks cannot be cut off, reordered or repeated.
//! Each chunk also authenticates the object's name and the clear beginning, so an object that was stored
//! under another name, or in another timeline, cannot be decrypted.
use bytes::{Buf, BytesMut};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{
        OsRng, Payload,
        rand_core::RngCore,
        stream::{DecryptorBE32, EncryptorBE32},
    },
};

use crate::{
    keys::{Keys, MAX_ID_BYTES},
    problem::{BadObject, Problem},
};

/// First bytes of every encrypted object.
const MAGIC: &[u8; 8] = b"RQSEALED";
/// Format of what follows the magic.
const FORMAT: u8 = 1;
/// Random bytes of an object: XChaCha20's nonce (24 bytes) without STREAM's counter (4) and flag (1).
const NONCE_BYTES: usize = 19;
/// Largest plaintext of one chunk.
const CHUNK_BYTES: usize = 1 << 20;
const TAG_BYTES: usize = 16;
const LAST: u32 = 1 << 31;

/// Encrypts one object, or passes it through if there are no keys.
pub struct Sealer(Option<Sealing>);

struct Sealing {
    encryptor: EncryptorBE32<XChaCha20Poly1305>,
    associated: Vec<u8>,
    clear: Vec<u8>,
    chunk: Vec<u8>,
}

impl Sealer {
    /// Begins the object of this name (below the archive's prefix).
    pub fn new(keys: Option<&Keys>, object: &str) -> Self {
        let mut nonce = [0; NONCE_BYTES];
        OsRng.fill_bytes(&mut nonce);
        Self::with_nonce(keys, object, nonce)
    }

    /// As [`Self::new`], with a given random part: for golden bytes only.
    fn with_nonce(keys: Option<&Keys>, object: &str, nonce: [u8; NONCE_BYTES]) -> Self {
        Self(keys.and_then(|keys| {
            let id = keys.encrypting_id();
            let cipher = keys.cipher(id)?;
            let mut clear = MAGIC.to_vec();
            clear.push(FORMAT);
            clear.push(u8::try_from(id.len()).ok()?);
            clear.extend_from_slice(id.as_bytes());
            clear.extend_from_slice(&nonce);
            Some(Sealing {
                encryptor: EncryptorBE32::from_aead(cipher, (&nonce).into()),
                associated: associated(&clear, object),
                clear,
                chunk: Vec::new(),
            })
        }))
    }

    /// Adds plaintext; appends to `out` what is ready to be stored.
    ///
    /// # Errors
    /// An object of more than 2^32 chunks (4 PiB).
    pub fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
        let Some(sealing) = &mut self.0 else {
            out.extend_from_slice(data);
            return Ok(());
        };
        while sealing.chunk.len() + data.len() > CHUNK_BYTES {
            let (now, later) = data.split_at(CHUNK_BYTES - sealing.chunk.len());
            sealing.chunk.extend_from_slice(now);
            data = later;
            sealing.cut(out)?;
        }
        sealing.chunk.extend_from_slice(data);
        Ok(())
    }

    /// Ends the current chunk, so that what was added so far can be decrypted without the rest.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn cut(&mut self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        match &mut self.0 {
            Some(sealing) if !sealing.chunk.is_empty() => sealing.cut(out),
            _ => Ok(()),
        }
    }

    /// Ends the object.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let Some(mut sealing) = self.0 else {
            return Ok(());
        };
        out.append(&mut sealing.clear);
        let payload = Payload {
            msg: &sealing.chunk,
            aad: &sealing.associated,
        };
        let sealed = sealing.encryptor.encrypt_last(payload);
        append(out, &sealed.map_err(|_| TooLong)?, LAST)
    }
}

impl Sealing {
    fn cut(&mut self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.append(&mut self.clear);
        let payload = Payload {
            msg: &self.chunk,
            aad: &self.associated,
        };
        let sealed = self.encryptor.encrypt_next(payload).map_err(|_| TooLong)?;
        self.chunk.clear();
        append(out, &sealed, 0)
    }
}

fn append(out: &mut Vec<u8>, sealed: &[u8], flag: u32) -> Result<(), TooLong> {
    let plain = sealed.len().saturating_sub(TAG_BYTES);
    let length = u32::try_from(plain).map_err(|_| TooLong)?;
    out.extend_from_slice(&(length | flag).to_be_bytes());
    out.extend_from_slice(sealed);
    Ok(())
}

/// What every chunk authenticates besides its content.
fn associated(clear: &[u8], object: &str) -> Vec<u8> {
    let mut all = clear.to_vec();
    all.extend_from_slice(object.as_bytes());
    all
}

/// An object of more chunks than one nonce may encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object has more than 4 PiB")]
pub struct TooLong;

/// Decrypts one object as its bytes arrive. An object that is not encrypted is passed through if there are no
/// keys, or if they allow it (`allow-plain`).
pub struct Opener<'a> {
    keys: Option<&'a Keys>,
    object: &'a str,
    waiting: BytesMut,
    state: Opening,
}

enum Opening {
    /// Too few bytes to know what it is.
    Unknown,
    Plain,
    Sealed(Box<Sealed>),
    /// The last chunk was opened.
    Ended,
}

struct Sealed {
    /// `None` after the last chunk.
    decryptor: Option<DecryptorBE32<XChaCha20Poly1305>>,
    associated: Vec<u8>,
    key: String,
}

impl Sealed {
    fn open(&mut self, msg: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Problem> {
        let payload = Payload {
            msg,
            aad: &self.associated,
        };
        let opened = if last {
            self.decryptor.take().map(|d| d.decrypt_last(payload))
        } else {
            self.decryptor.as_mut().map(|d| d.decrypt_next(payload))
        };
        let Some(Ok(plain)) = opened else {
            return Err(Problem::NotAuthentic(self.key.clone()));
        };
        out.extend_from_slice(&plain);
        Ok(())
    }
}

/// Whether a chunk is the last; its ciphertext with the tag; its whole length with the 4 bytes before it.
type Chunk<'a> = (bool, &'a [u8], usize);

/// The next chunk, if all of it is there.
fn next_chunk(waiting: &[u8]) -> Result<Option<Chunk<'_>>, Problem> {
    let Some(head) = waiting.first_chunk::<4>() else {
        return Ok(None);
    };
    let head = u32::from_be_bytes(*head);
    let length = usize::try_from(head & !LAST).unwrap_or(usize::MAX);
    if length > CHUNK_BYTES {
        return Err(Problem::Damaged("a chunk is longer than chunks are".into()));
    }
    let whole = 4 + length + TAG_BYTES;
    let chunk = waiting.get(4..whole);
    Ok(chunk.map(|chunk| (head & LAST != 0, chunk, whole)))
}

impl<'a> Opener<'a> {
    /// Begins the object of this name (below the archive's prefix).
    pub fn new(keys: Option<&'a Keys>, object: &'a str) -> Self {
        Self {
            keys,
            object,
            waiting: BytesMut::new(),
            state: Opening::Unknown,
        }
    }

    /// Adds bytes of the object; appends to `out` the plaintext of the chunks that are complete and
    /// authentic.
    ///
    /// # Errors
    /// The object cannot be decrypted, or is not encrypted although it must be.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), BadObject> {
        if matches!(self.state, Opening::Plain) {
            out.extend_from_slice(data);
            return Ok(());
        }
        self.waiting.extend_from_slice(data);
        let stepped = self.steps(out);
        stepped.map_err(|problem| BadObject::new(self.object, problem))
    }

    /// Ends the object.
    ///
    /// # Errors
    /// The object is truncated.
    pub fn finish(self) -> Result<(), BadObject> {
        let problem = match self.state {
            Opening::Plain | Opening::Ended => return Ok(()),
            Opening::Unknown if self.waiting.is_empty() => "it is empty",
            Opening::Unknown | Opening::Sealed(_) => "its last part is missing",
        };
        Err(BadObject::new(
            self.object,
            Problem::Truncated(problem.into()),
        ))
    }

    fn steps(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        while self.step(out)? {}
        Ok(())
    }

    /// One step; `false` if it needs more bytes.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, Problem> {
        match &mut self.state {
            Opening::Plain => Ok(false),
            Opening::Unknown if self.waiting.starts_with(MAGIC) => self.begin(),
            Opening::Unknown if MAGIC.starts_with(&self.waiting) => Ok(false),
            Opening::Unknown => self.plain(out).map(|()| false),
            Opening::Ended if self.waiting.is_empty() => Ok(false),
            Opening::Ended => Err(Problem::Damaged("bytes follow its end".into())),
            Opening::Sealed(sealed) => {
                let Some((last, chunk, whole)) = next_chunk(&self.waiting)? else {
                    return Ok(false);
                };
                sealed.open(chunk, last, out)?;
                self.waiting.advance(whole);
                if last {
                    self.state = Opening::Ended;
                }
                Ok(true)
            }
        }
    }

    /// Passes on the first bytes of an object that is not encrypted, if that is allowed.
    fn plain(&mut self, out: &mut Vec<u8>) -> Result<(), Problem> {
        if self.keys.is_some_and(|keys| !keys.allows_plain()) {
            return Err(Problem::NotEncrypted);
        }
        out.extend_from_slice(&self.waiting);
        self.waiting.clear();
        self.state = Opening::Plain;
        Ok(())
    }

    /// Reads the clear beginning of an encrypted object; `false` if it needs more bytes.
    fn begin(&mut self) -> Result<bool, Problem> {
        let Some(&[format, id_length]) = self.waiting.get(MAGIC.len()..MAGIC.len() + 2) else {
            return Ok(false);
        };
        if format != FORMAT {
            return Err(Problem::Newer(format.into()));
        }
        let id_end = MAGIC.len() + 2 + usize::from(id_length);
        if usize::from(id_length) > MAX_ID_BYTES {
            return Err(Problem::Damaged(
                "the id of its key is longer than ids are".into(),
            ));
        }
        let clear_end = id_end + NONCE_BYTES;
        let (Some(id), Some(nonce)) = (
            self.waiting.get(MAGIC.len() + 2..id_end),
            self.waiting.get(id_end..clear_end),
        ) else {
            return Ok(false);
        };
        let id = String::from_utf8_lossy(id).into_owned();
        let keys = self.keys.ok_or_else(|| Problem::NoKeys(id.clone()))?;
        let cipher = keys
            .cipher(&id)
            .ok_or_else(|| Problem::NoSuchKey(id.clone()))?;
        let decryptor = DecryptorBE32::from_aead(cipher, nonce.into());
        let clear = self.waiting.split_to(clear_end);
        self.state = Opening::Sealed(Box::new(Sealed {
            decryptor: Some(decryptor),
            associated: associated(&clear, self.object),
            key: id,
        }));
        Ok(true)
    }
}

/// Encrypts a small object.
///
/// # Errors
/// As [`Sealer::push`].
pub fn seal(keys: Option<&Keys>, object: &str, plain: &[u8]) -> Result<Vec<u8>, TooLong> {
    let mut out = Vec::with_capacity(plain.len() + 256);
    let mut sealer = Sealer::new(keys, object);
    sealer.push(plain, &mut out)?;
    sealer.finish(&mut out)?;
    Ok(out)
}

/// Decrypts a small object.
///
/// # Errors
/// The object cannot be decrypted, or is not encrypted although it must be.
pub fn open(keys: Option<&Keys>, object: &str, stored: &[u8]) -> Result<Vec<u8>, BadObject> {
    let mut out = Vec::with_capacity(stored.len());
    let mut opener = Opener::new(keys, object);
    opener.push(stored, &mut out)?;
    opener.finish()?;
    Ok(out)
}

#[cfg(test)]
mod tests;
