//! `google.protobuf.FieldMask`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names fields of a message. In JSON one string of lowerCamelCase paths with commas between them: `"name,diskSize"`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FieldMask {
    /// The paths, in the protocol's spelling: `disk_size`.
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

impl Serialize for FieldMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let paths: Vec<String> = self.paths.iter().map(|path| camel(path)).collect();
        serializer.serialize_str(&paths.join(","))
    }
}

impl<'de> Deserialize<'de> for FieldMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        // The empty text is the empty mask.
        let paths = text.split(',').filter(|_| !text.is_empty()).map(|path| snake(path.trim()));
        Ok(Self { paths: paths.collect() })
    }
}

fn camel(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut upper = false;
    for character in path.chars() {
        match character {
            '_' => upper = true,
            _ if upper => {
                text.push(character.to_ascii_uppercase());
                upper = false;
            }
            _ => text.push(character),
        }
    }
    text
}

fn snake(path: &str) -> String {
    let mut text = String::with_capacity(path.len() + 4);
    for character in path.chars() {
        if character.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_string_of_camel_case_paths() {
        let mask = FieldMask { paths: vec!["name".to_owned(), "disk_size".to_owned()] };
        assert_eq!(serde_json::to_string(&mask).unwrap(), r#""name,diskSize""#);
        assert_eq!(serde_json::from_str::<FieldMask>(r#""name, diskSize""#).unwrap(), mask);
        assert_eq!(serde_json::from_str::<FieldMask>(r#""""#).unwrap(), FieldMask::default());
        // An empty path among others is a path, for whoever checks paths to refuse.
        assert_eq!(serde_json::from_str::<FieldMask>(r#""name,""#).unwrap().paths, ["name", ""]);
        assert!(serde_json::from_str::<FieldMask>(r#"["name"]"#).is_err());
    }
}
