//! Addresses: `domain`, `domain/product`, `domain/product.port`, `domain/product.port#column`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a legal name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a name: {why}")]
pub struct NameError {
    /// The text as given.
    pub text: String,
    /// What is wrong with it, as a fragment.
    pub why: &'static str,
}

/// The longest name: it fits a DNS label and every file system.
const MAX_NAME: usize = 63;

fn check_name(text: &str) -> Result<(), NameError> {
    let fail = |why| Err(NameError { text: text.to_owned(), why });
    let Some(first) = text.chars().next() else { return fail("it is empty") };
    if !first.is_ascii_lowercase() {
        return fail("it must start with a lower-case letter");
    }
    if text.len() > MAX_NAME {
        return fail("it is longer than 63 characters");
    }
    if !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_') {
        return fail("only lower-case letters, digits, `-` and `_` are allowed");
    }
    Ok(())
}

// Addresses go into every key of the ledger and of what is derived from it: a copy shares the text.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Returns the name, if `text` is one.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, too long or holds another character.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check_name(&text)?;
                Ok(Self(text.into()))
            }

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// The name of a domain: its folder under `domains/`.
    DomainName
}
name! {
    /// The name of a product: its folder under its domain's.
    ProductName
}
name! {
    /// The name of a port; also the name of its table in SQL.
    PortName
}
name! {
    /// The name of a pipeline within its product.
    PipelineName
}

macro_rules! address_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(address: $type) -> String {
                address.to_string()
            }
        }
    };
}

/// The address of a product: `domain/product`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProductId {
    /// The domain that owns the product.
    pub domain: DomainName,
    /// The product within the domain.
    pub name: ProductName,
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.name)
    }
}

impl std::str::FromStr for ProductId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (domain, name) = text
            .split_once('/')
            .ok_or_else(|| NameError { text: text.to_owned(), why: "a product is `domain/product`" })?;
        Ok(Self { domain: DomainName::new(domain)?, name: ProductName::new(name)? })
    }
}
address_text!(ProductId);

/// The address of an output port: `domain/product.port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortId {
    /// The product that offers the port.
    pub product: ProductId,
    /// The port within the product.
    pub port: PortName,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.product, self.port)
    }
}

impl std::str::FromStr for PortId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (product, port) = text
            .split_once('.')
            .ok_or_else(|| NameError { text: text.to_owned(), why: "a port is `domain/product.port`" })?;
        Ok(Self { product: product.parse()?, port: PortName::new(port)? })
    }
}
address_text!(PortId);

/// The address of a pipeline: `domain/product:pipeline`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PipelineId {
    /// The product that the pipeline makes.
    pub product: ProductId,
    /// The pipeline within the product.
    pub name: PipelineName,
}

impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.product, self.name)
    }
}

impl std::str::FromStr for PipelineId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (product, name) = text.split_once(':').ok_or_else(|| NameError {
            text: text.to_owned(),
            why: "a pipeline is `domain/product:pipeline`",
        })?;
        Ok(Self { product: product.parse()?, name: PipelineName::new(name)? })
    }
}
address_text!(PipelineId);

/// The address of a column: `domain/product.port#column`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColumnId {
    /// The port that carries the column.
    pub port: PortId,
    /// The column's name as the contract spells it.
    pub column: String,
}

impl fmt::Display for ColumnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.port, self.column)
    }
}

impl std::str::FromStr for ColumnId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (port, column) = text.split_once('#').ok_or_else(|| NameError {
            text: text.to_owned(),
            why: "a column is `domain/product.port#column`",
        })?;
        Ok(Self { port: port.parse()?, column: column.to_owned() })
    }
}
address_text!(ColumnId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["commerce/orders.orders", "customer/customer-360.customer_360"] {
            let port: PortId = text.parse().expect("legal");
            assert_eq!(port.to_string(), text);
        }
        let column: ColumnId = "a/b.c#d".parse().expect("legal");
        assert_eq!(column.port.product.domain.as_str(), "a");
        let pipeline: PipelineId = "a/b:c".parse().expect("legal");
        assert_eq!(serde_json::to_string(&pipeline).expect("text"), "\"a/b:c\"");
    }

    #[test]
    fn names_refuse_what_a_path_could_abuse() {
        for text in ["", "..", "Orders", "a b", "é", "a/b", "1st", &"x".repeat(64)] {
            assert!(DomainName::new(text).is_err(), "{text}");
        }
    }
}
