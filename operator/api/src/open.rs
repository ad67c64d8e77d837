//! Enumerations of a status that stay readable when a newer operator wrote them: a value that this version
//! does not know is kept as it is, and written back as it was.

/// Longest value that is kept whole, in bytes; the schema allows no longer one.
pub(crate) const MAX_WORD: usize = 63;

/// A value that this version does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word([u8; MAX_WORD]);

impl Word {
    /// The value's text.
    pub fn as_str(&self) -> &str {
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        text.trim_end_matches('\0')
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        let fits = text
            .char_indices()
            .take_while(|(at, c)| at + c.len_utf8() <= MAX_WORD);
        let length = fits.map(|(_, c)| c.len_utf8()).sum();
        let mut bytes = [0; MAX_WORD];
        for (to, from) in bytes.iter_mut().zip(text.bytes().take(length)) {
            *to = from;
        }
        Self(bytes)
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.as_str())
    }
}

/// An enumeration of a status: `Variant = "text"`. Everywhere else enumerations are closed.
macro_rules! open_enum {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A value of a newer operator.
            Other($crate::open::Word),
        }

        impl $name {
            /// All values that this version knows.
            pub const KNOWN: &[&str] = &[$($text,)*];

            /// The value as it is written.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(word) => word.as_str(),
                }
            }

            /// Does this version know the value?
            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => to.write_str(stringify!($variant)),)*
                    Self::Other(word) => to.write_str(word.as_str()),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from).map(|text| Self::from(text.as_str()))
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "maxLength": $crate::open::MAX_WORD })
            }
        }
    };
}

pub(crate) use open_enum;

#[cfg(test)]
mod tests {
    use super::Word;
    use crate::{recovery::RecoveryPhase, status::OperationType, status::Role};

    #[test]
    fn a_value_of_the_future_is_written_back_as_it_was() {
        let future: OperationType = serde_json::from_str("\"Defragment\"").unwrap();
        assert!(!future.is_known());
        assert_eq!(format!("{future:?}"), "Defragment");
        assert_eq!(serde_json::to_string(&future).unwrap(), "\"Defragment\"");
        for known in OperationType::KNOWN {
            let one = OperationType::from(*known);
            assert!(one.is_known() && one.as_str() == *known, "{known}");
        }
        assert_eq!(Role::from("leader"), Role::Leader);
        assert_eq!(format!("{:?}", Role::Leader), "Leader");
        assert!(!RecoveryPhase::from("leader").is_known());
        assert!(
            serde_json::from_str::<Role>("7").is_err(),
            "still of one type"
        );
    }

    #[test]
    fn a_longer_one_is_cut_between_two_characters() {
        let long = "ä".repeat(40);
        let word = Word::from(long.as_str());
        assert_eq!(word.as_str(), "ä".repeat(31));
    }
}
