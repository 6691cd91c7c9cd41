//! What turns texts into vectors, and how a vector is addressed.

use std::fmt;
use std::sync::Arc;

use hydromesh_core::model::EmbeddingPipeline;
use sha2::{Digest as _, Sha256};

use super::exact::{IndexError, unit};
use super::hashing::Hashing;

/// Turns texts into vectors.
pub trait Provider: Send + Sync {
    /// Returns the model's identity: two providers of one identity give the same vector for the same text. It names
    /// model, version and dimensions.
    fn id(&self) -> String;

    /// Returns the length of its vectors.
    fn dimensions(&self) -> usize;

    /// Returns one vector per text, in order. May block.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError>;
}

/// Why texts have no vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The definition names a provider that does not exist.
    #[error("there is no embedding provider `{0}`")]
    Unknown(String),
    /// The provider failed.
    #[error("model {model} failed: {message}")]
    Failed {
        /// Its identity.
        model: String,
        /// What it said.
        message: String,
    },
    /// The provider answered with another number of vectors.
    #[error("model {model} gave {found} vectors for {expected} texts")]
    Count {
        /// Its identity.
        model: String,
        /// Texts asked for.
        expected: usize,
        /// Vectors given.
        found: usize,
    },
    /// The provider's vector is none.
    #[error("model {model} gave a vector that cannot be used")]
    Vector {
        /// Its identity.
        model: String,
        /// What is wrong with it.
        source: IndexError,
    },
}

/// A provider with what is done around it: a prefix before each text, unit length after.
#[derive(Clone)]
pub struct Model {
    provider: Arc<dyn Provider>,
    id: String,
    prefix: String,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Model")
            .field("id", &self.id)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Vectors are stored with this length; part of their address.
const NORMALISED: &str = "unit";

impl Model {
    /// Returns the model that a definition names.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`].
    pub fn of(pipeline: &EmbeddingPipeline) -> Result<Self, ProviderError> {
        match pipeline.provider.as_str() {
            "hashing" => {
                let dimensions = usize::try_from(pipeline.dimensions).unwrap_or(usize::MAX);
                Ok(Self::new(Arc::new(Hashing::new(dimensions)), ""))
            }
            other => Err(ProviderError::Unknown(other.to_owned())),
        }
    }

    /// Returns a model of a provider that wants `prefix` before each text.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, prefix: impl Into<String>) -> Self {
        let id = provider.id();
        Self { provider, id, prefix: prefix.into() }
    }

    /// Returns the provider's identity.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the length of its vectors.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.provider.dimensions()
    }

    /// Returns the address of a text's vector: everything that decides its bytes, hashed. Equal texts share a vector,
    /// wherever they stand; another model never does.
    #[must_use]
    pub fn address(&self, text: &str) -> String {
        let mut hasher = Sha256::new();
        for part in ["hydromesh.vector/1", &self.id, NORMALISED, &self.prefix, text] {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// Returns one unit vector per text, in order. May block.
    ///
    /// # Errors
    /// [`ProviderError`], also when the provider breaks its own promises.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError> {
        let vectors = if self.prefix.is_empty() {
            self.provider.embed(texts)?
        } else {
            let prefixed: Vec<String> = texts.iter().map(|text| format!("{}{text}", self.prefix)).collect();
            self.provider.embed(&prefixed.iter().map(String::as_str).collect::<Vec<_>>())?
        };
        let model = || self.id.clone();
        if vectors.len() != texts.len() {
            return Err(ProviderError::Count { model: model(), expected: texts.len(), found: vectors.len() });
        }
        vectors.iter().map(|vector| self.checked(vector)).collect()
    }

    fn checked(&self, vector: &[f32]) -> Result<Vec<f32>, ProviderError> {
        let fault = |source| ProviderError::Vector { model: self.id.clone(), source };
        if vector.len() != self.dimensions() {
            return Err(fault(IndexError::Dimensions { expected: self.dimensions(), found: vector.len() }));
        }
        unit(vector).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Vec<Vec<f32>>);

    impl Provider for Says {
        fn id(&self) -> String {
            "says/1/2".to_owned()
        }

        fn dimensions(&self) -> usize {
            2
        }

        fn embed(&self, _texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError> {
            Ok(self.0.clone())
        }
    }

    fn says(vectors: Vec<Vec<f32>>) -> Model {
        Model::new(Arc::new(Says(vectors)), "")
    }

    #[test]
    fn what_a_provider_says_is_checked() {
        assert_eq!(says(vec![vec![3.0, 4.0]]).embed(&["a"]), Ok(vec![vec![0.6, 0.8]]));
        assert!(matches!(says(Vec::new()).embed(&["a"]), Err(ProviderError::Count { .. })));
        for wrong in [vec![1.0], vec![0.0, 0.0], vec![f32::NAN, 1.0]] {
            assert!(matches!(says(vec![wrong]).embed(&["a"]), Err(ProviderError::Vector { .. })));
        }
    }

    #[test]
    fn everything_that_decides_a_vector_is_in_its_address() {
        let model = |dimensions, prefix: &str| Model::new(Arc::new(Hashing::new(dimensions)), prefix);
        let address = model(384, "").address("text");
        assert_eq!(address.len(), 64);
        assert_eq!(address, model(384, "").address("text"));
        assert_ne!(address, model(384, "").address("text "));
        assert_ne!(address, model(385, "").address("text"));
        assert_ne!(model(384, "te").address("xt"), model(384, "").address("text"));
    }
}
