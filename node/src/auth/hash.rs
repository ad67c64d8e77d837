//! Hashed passwords: their forms, what a hash may cost, and how a password is compared with one.
use std::fmt;

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHash, PasswordVerifier, SaltString},
};
use base64::{Engine as _, alphabet, engine::GeneralPurpose, engine::general_purpose::NO_PAD};

/// The most memory that a hash may ask for: what argon2's libraries use by default, and what one check may
/// take beside the database.
const MAX_ARGON2_KIB: u32 = 64 << 10;
/// The most iterations, and the most memory times iterations: about a quarter of a second.
const MAX_ARGON2_ITERATIONS: u32 = 16;
const MAX_ARGON2_WORK: u32 = 4 * MAX_ARGON2_KIB;
const MAX_ARGON2_LANES: u32 = 16;
/// A shorter result is found by trying.
const MIN_ARGON2_OUTPUT_BYTES: usize = 16;
/// The highest cost of bcrypt: about half a second.
const MAX_BCRYPT_COST: u32 = 13;
const MIN_BCRYPT_COST: u32 = 4;
/// bcrypt disregards what comes after.
pub(crate) const MAX_BCRYPT_PASSWORD_BYTES: usize = 72;
/// Length of the salt and of the result in bcrypt's form.
const BCRYPT_SALT_CHARS: usize = 22;
const BCRYPT_RESULT_CHARS: usize = 31;
/// Cost of new bcrypt hashes.
const NEW_BCRYPT_COST: u32 = 10;

/// Beginnings of hashes that other programs make and this one does not know. Taken for a password in clear
/// text, such a hash itself would let in.
const OTHER_FORMS: [&str; 15] = [
    "$1$", "$5$", "$6$", "$7$", "$y$", "$gy$", "$2$", "$2x$", "$apr1$", "$argon2", "$scrypt$",
    "$pbkdf2", "{SHA}", "{SSHA}", "{CRYPT}",
];

/// A hash that has been checked: its form is right and its cost is within the limits.
#[derive(Clone)]
pub(super) enum Hash {
    Argon2(String),
    Bcrypt(String),
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Argon2(_) => "Argon2(…)",
            Self::Bcrypt(_) => "Bcrypt(…)",
        })
    }
}

impl Hash {
    /// The hash that a text of the file is; `None` if it is a password in clear text.
    ///
    /// # Errors
    /// What is wrong with it, without the text itself.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.starts_with("$argon2id$") {
            return argon2_hash(text).map(Some);
        }
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|form| text.starts_with(form))
        {
            return bcrypt_hash(text).map(Some);
        }
        match OTHER_FORMS.iter().find(|form| text.starts_with(*form)) {
            None => Ok(None),
            Some(form) => Err(format!(
                "begins with {form}, like a hash of a kind that is not supported; make one with `rqlited hash-password`"
            )),
        }
    }

    /// The text, for telling hashes apart.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Argon2(text) | Self::Bcrypt(text) => text,
        }
    }

    /// Takes long on purpose.
    pub(super) fn matches(&self, password: &str) -> bool {
        match self {
            Self::Argon2(text) => PasswordHash::new(text).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            }),
            // bcrypt ends a password at its first NUL and after 72 bytes: what differs only there is another
            // password all the same. The work is done anyway, so that it takes as long.
            Self::Bcrypt(text) => {
                let whole = is_for_bcrypt(password);
                bcrypt::verify(password, text).unwrap_or(false) && whole
            }
        }
    }
}

fn is_for_bcrypt(password: &str) -> bool {
    password.len() <= MAX_BCRYPT_PASSWORD_BYTES && !password.contains('\0')
}

fn argon2_hash(text: &str) -> Result<Hash, String> {
    let malformed = "is not a well-formed argon2id hash; make one with `rqlited hash-password`";
    let hash = PasswordHash::new(text).map_err(|_| malformed.to_owned())?;
    let params = Params::try_from(&hash).map_err(|_| malformed.to_owned())?;
    let known_version = matches!(hash.version, None | Some(16 | 19));
    let (Some(output), Some(_salt), true) = (hash.hash, hash.salt, known_version) else {
        return Err(malformed.to_owned());
    };
    if output.len() < MIN_ARGON2_OUTPUT_BYTES {
        return Err(format!(
            "is an argon2id hash of only {} bytes; make one of 32 with `rqlited hash-password`",
            output.len()
        ));
    }
    let (kib, iterations, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    if kib > MAX_ARGON2_KIB
        || iterations > MAX_ARGON2_ITERATIONS
        || lanes > MAX_ARGON2_LANES
        || kib.saturating_mul(iterations) > MAX_ARGON2_WORK
    {
        return Err(format!(
            "is an argon2id hash that asks for too much (m={kib},t={iterations},p={lanes}): at most m={MAX_ARGON2_KIB} (KiB), t={MAX_ARGON2_ITERATIONS}, p={MAX_ARGON2_LANES} and m times t of {MAX_ARGON2_WORK} are accepted; make one with `rqlited hash-password`"
        ));
    }
    Ok(Hash::Argon2(text.to_owned()))
}

fn bcrypt_hash(text: &str) -> Result<Hash, String> {
    let malformed = "is not a well-formed bcrypt hash; make one with `rqlited hash-password`";
    let parts: Vec<&str> = text.split('$').collect();
    let ["", _, cost, rest] = parts.as_slice() else {
        return Err(malformed.to_owned());
    };
    let (Some(salt), Some(result)) = (rest.get(..BCRYPT_SALT_CHARS), rest.get(BCRYPT_SALT_CHARS..))
    else {
        return Err(malformed.to_owned());
    };
    let decoder = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD);
    let two_digits = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    let (Ok(cost), true, true) = (
        cost.parse::<u32>(),
        two_digits && result.len() == BCRYPT_RESULT_CHARS,
        decoder.decode(salt).is_ok() && decoder.decode(result).is_ok(),
    ) else {
        return Err(malformed.to_owned());
    };
    if !(MIN_BCRYPT_COST..=MAX_BCRYPT_COST).contains(&cost) {
        return Err(format!(
            "is a bcrypt hash of cost {cost}: {MIN_BCRYPT_COST} to {MAX_BCRYPT_COST} are accepted; make one with `rqlited hash-password`"
        ));
    }
    Ok(Hash::Bcrypt(text.to_owned()))
}

/// How a new hash is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// argon2id with 19 MiB and two iterations.
    Argon2id,
    /// bcrypt of cost 10; for files that other programs read too.
    Bcrypt,
}

/// Hashes a password with a new salt.
///
/// # Errors
/// The password cannot be hashed by this algorithm; the text says why.
pub fn hash_password(password: &str, algorithm: Algorithm) -> Result<String, String> {
    match algorithm {
        Algorithm::Argon2id => {
            let salt: [u8; 16] = rand::random();
            let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
            let hash = argon2::PasswordHasher::hash_password(
                &Argon2::default(),
                password.as_bytes(),
                &salt,
            );
            hash.map(|hash| hash.to_string())
                .map_err(|error| error.to_string())
        }
        Algorithm::Bcrypt if !is_for_bcrypt(password) => Err(format!(
            "bcrypt takes at most {MAX_BCRYPT_PASSWORD_BYTES} bytes and no NUL: use argon2id, or a shorter password"
        )),
        Algorithm::Bcrypt => {
            bcrypt::hash(password, NEW_BCRYPT_COST).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, made by other programs: PHP's `password_hash` and Apache's `htpasswd -B`.
    const BCRYPT: &str = "$2y$05$LCsQdd2ms5wAgAGQCbbqD.YQD2m0xsjJlHOY3eVWjD2p9kKWHLHe6";

    fn found(text: &str) -> Result<bool, String> {
        Hash::parse(text).map(|hash| hash.is_some())
    }

    #[test]
    fn own_hashes_are_read_and_match_their_password_only() {
        for algorithm in [Algorithm::Argon2id, Algorithm::Bcrypt] {
            let text = hash_password("päss wörd:x", algorithm).unwrap();
            let again = hash_password("päss wörd:x", algorithm).unwrap();
            assert_ne!(text, again, "the salt is new each time");
            let hash = Hash::parse(&text).unwrap().unwrap();
            assert!(hash.matches("päss wörd:x"));
            for wrong in ["", "päss wörd:", "päss wörd:x\0", "PÄSS WÖRD:X", &text] {
                assert!(!hash.matches(wrong), "{wrong:?}");
            }
            assert!(!format!("{hash:?}").contains('$'));
        }
    }

    #[test]
    fn bcrypt_does_not_take_what_it_would_cut() {
        let long = "x".repeat(72);
        let hash = Hash::parse(&hash_password(&long, Algorithm::Bcrypt).unwrap());
        let hash = hash.unwrap().unwrap();
        assert!(hash.matches(&long));
        assert!(!hash.matches(&format!("{long}y")));
        for refused in [format!("{long}y"), "a\0b".to_owned()] {
            assert!(
                hash_password(&refused, Algorithm::Bcrypt)
                    .unwrap_err()
                    .contains("72")
            );
            assert!(hash_password(&refused, Algorithm::Argon2id).is_ok());
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn forms() {
        let salt = "c29tZXNhbHRzb21lc2FsdA";
        let output = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let argon2 = |params: &str| format!("$argon2id$v=19${params}${salt}${output}");
        for good in [
            argon2("m=19456,t=2,p=1"),
            argon2("m=65536,t=4,p=1"),
            argon2("m=65536,t=3,p=4"),
            argon2("m=8,t=1,p=1"),
            BCRYPT.to_owned(),
            BCRYPT.replace("$2y$", "$2a$"),
            BCRYPT.replace("$05$", "$13$"),
        ] {
            assert_eq!(found(&good), Ok(true), "{good}");
        }
        for plain in [
            "", "secret", "$", "$ecret", "$2", "$2c$x", "argon2id", "pa$$word",
        ] {
            assert_eq!(found(plain), Ok(false), "{plain}");
        }
        for (bad, why) in [
            ("$argon2id$".to_owned(), "well-formed"),
            (
                "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ".to_owned(),
                "well-formed",
            ),
            (argon2("m=19456,t=2"), ""),
            (argon2("m=x,t=2,p=1"), "well-formed"),
            (argon2("m=65537,t=1,p=1"), "too much"),
            (argon2("m=4294967295,t=1,p=1"), "too much"),
            (argon2("m=8,t=17,p=1"), "too much"),
            (argon2("m=65536,t=5,p=1"), "too much"),
            (argon2("m=19456,t=4294967295,p=1"), "too much"),
            (argon2("m=19456,t=0,p=1"), "well-formed"),
            (argon2("m=1024,t=1,p=17"), "too much"),
            (
                argon2("m=19456,t=2,p=1").replace("v=19", "v=20"),
                "well-formed",
            ),
            (
                format!("$argon2id$v=19$m=8,t=1,p=1${salt}$AAAAAAAAAAAAAAAA"),
                "only 12 bytes",
            ),
            (
                argon2("m=8,t=1,p=1").replace("$argon2id", "$argon2i"),
                "not supported",
            ),
            (
                argon2("m=8,t=1,p=1").replace("$argon2id", "$argon2d"),
                "not supported",
            ),
            ("$2b$".to_owned(), "well-formed"),
            (BCRYPT[..59].to_owned(), "well-formed"),
            (format!("{BCRYPT}x"), "well-formed"),
            (BCRYPT.replace("LCsQ", "LCs!"), "well-formed"),
            (BCRYPT.replace("$05$", "$5$"), "well-formed"),
            (BCRYPT.replace("$05$", "$+5$"), "well-formed"),
            (BCRYPT.replace("$05$", "$14$"), "cost 14"),
            (BCRYPT.replace("$05$", "$31$"), "cost 31"),
            (BCRYPT.replace("$05$", "$00$"), "cost 0"),
            (BCRYPT.replace("$2y$", "$2x$"), "not supported"),
            ("$6$salt$x".to_owned(), "not supported"),
            ("{SSHA}x".to_owned(), "not supported"),
        ] {
            let Err(text) = found(&bad) else {
                assert!(why.is_empty(), "{bad} was accepted");
                continue;
            };
            assert!(
                text.contains(why) && text.contains("hash-password"),
                "{bad}: {text}"
            );
            assert!(!text.contains(output) && !text.contains(salt), "{text}");
        }
    }
}
