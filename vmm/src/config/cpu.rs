//! What a guest's processors are to say of themselves: bits of CPUID leaves and machine registers, set, cleared, or left as
//! the host has them.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A custom CPU template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuConfig {
    /// What else the host's KVM must be able to do, or need not.
    #[serde(default)]
    pub kvm_capabilities: Vec<KvmCapability>,
    /// Changes of CPUID leaves.
    #[serde(default)]
    pub cpuid_modifiers: Vec<CpuidModifier>,
    /// Changes of machine registers.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// A template of the configuration file: written there, or in a file of its own that is named there, as in Firecracker's.
pub(super) fn there_or_named<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<CpuConfig>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Option<CpuConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a CPU template or the path of one")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: Error>(self, path: &str) -> Result<Self::Value, E> {
            let cannot = |why: &dyn fmt::Display| E::custom(format_args!("CPU template {path}: {why}"));
            let text = std::fs::read(path).map_err(|e| cannot(&e))?;
            serde_json::from_slice(&text).map(Some).map_err(|e| cannot(&e))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            CpuConfig::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Either)
}

/// Changes of one CPUID leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidModifier {
    /// The function, in EAX.
    pub leaf: Number,
    /// The index, in ECX.
    pub subleaf: Number,
    /// KVM's flags of the entry: whether the index counts (`KVM_CPUID_FLAG_*`).
    pub flags: u32,
    /// What changes.
    pub modifiers: Vec<CpuidRegisterModifier>,
}

/// Changes of one register of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidRegisterModifier {
    /// Which.
    pub register: CpuidRegister,
    /// How.
    pub bitmap: Bitmap<32>,
}

/// A register CPUID answers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // their names
pub enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Changes of one machine register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// Its number.
    pub addr: Number,
    /// How.
    pub bitmap: Bitmap<64>,
}

/// A capability of KVM by its number: `"121"` must be there, `"!121"` is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KvmCapability {
    /// Must be there.
    Needed(u32),
    /// Need not be there.
    NotNeeded(u32),
}

impl TryFrom<String> for KvmCapability {
    type Error = String;

    fn try_from(text: String) -> Result<KvmCapability, String> {
        let parse = |digits: &str| {
            digits
                .parse()
                .map_err(|_| format!("invalid KVM capability {text:?}: a number, or one behind '!'"))
        };
        match text.strip_prefix('!') {
            Some(digits) => parse(digits).map(KvmCapability::NotNeeded),
            None => parse(&text).map(KvmCapability::Needed),
        }
    }
}

impl From<KvmCapability> for String {
    fn from(capability: KvmCapability) -> String {
        match capability {
            KvmCapability::Needed(number) => number.to_string(),
            KvmCapability::NotNeeded(number) => format!("!{number}"),
        }
    }
}

/// A number written as text: `0x` hexadecimal, `0b` binary, or decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Number(pub u32);

impl TryFrom<String> for Number {
    type Error = String;

    fn try_from(text: String) -> Result<Number, String> {
        let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
            (Some(digits), _) => (digits, 16),
            (_, Some(digits)) => (digits, 2),
            _ => (text.as_str(), 10),
        };
        u32::from_str_radix(digits, radix)
            .map(Number)
            .map_err(|e| format!("invalid number {text:?}: {e}"))
    }
}

impl From<Number> for String {
    fn from(number: Number) -> String {
        number.to_string()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What happens to each of `WIDTH` bits (at most 64): `0b`, then `0` to clear it, `1` to set it, `x` to leave it, the highest
/// first. Underscores are read over; highest bits that are not written are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bitmap<const WIDTH: usize> {
    /// Bits that are set or cleared.
    mask: u64,
    /// Those of them that are set.
    value: u64,
}

impl<const WIDTH: usize> Bitmap<WIDTH> {
    fn changed(self, register: u64) -> u64 {
        register & !self.mask | self.value
    }
}

impl Bitmap<64> {
    /// The register with its bits changed.
    #[must_use]
    pub fn apply(self, register: u64) -> u64 {
        self.changed(register)
    }
}

impl Bitmap<32> {
    /// The register with its bits changed.
    #[must_use]
    pub fn apply(self, register: u32) -> u32 {
        u32::try_from(self.changed(register.into())).expect("no mask is wider than its register")
    }
}

impl<const WIDTH: usize> TryFrom<String> for Bitmap<WIDTH> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bitmap = Bitmap { mask: 0, value: 0 };
        let bits = text.strip_prefix("0b").unwrap_or(&text);
        let bits = bits.chars().rev().filter(|c| *c != '_');
        for (at, bit) in bits.enumerate() {
            if at >= WIDTH {
                return Err(format!("invalid bitmap {text:?}: it has more than {WIDTH} bits"));
            }
            match bit {
                'x' => {}
                '0' => bitmap.mask |= 1 << at,
                '1' => {
                    bitmap.mask |= 1 << at;
                    bitmap.value |= 1 << at;
                }
                other => return Err(format!("invalid bitmap {text:?}: {other:?} is none of 0, 1, x")),
            }
        }
        Ok(bitmap)
    }
}

impl<const WIDTH: usize> From<Bitmap<WIDTH>> for String {
    fn from(bitmap: Bitmap<WIDTH>) -> String {
        let bit = |at| match (bitmap.mask >> at & 1, bitmap.value >> at & 1) {
            (0, _) => 'x',
            (_, 0) => '0',
            _ => '1',
        };
        "0b".chars().chain((0..WIDTH).rev().map(bit)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_changes_only_what_it_names() {
        let bitmap: Bitmap<32> = "0b1_0xx".to_owned().try_into().unwrap();
        assert_eq!(bitmap.apply(0), 0b1000);
        assert_eq!(bitmap.apply(u32::MAX), u32::MAX ^ 0b100);
        let written = format!("0b{}10xx", "x".repeat(28));
        assert_eq!(String::from(bitmap), written);
        let wide: Bitmap<64> = format!("0b1{}", "0".repeat(63)).try_into().unwrap();
        assert_eq!(wide.apply(u64::MAX), 1 << 63);
        for bad in ["0b2", "0bX", &"x".repeat(33)] {
            assert!(Bitmap::<32>::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_come_in_three_kinds() {
        let number = |text: &str| Number::try_from(text.to_owned()).map(|n| n.0);
        assert_eq!(number("0x10a"), Ok(266));
        assert_eq!(number("0b100001010"), Ok(266));
        assert_eq!(number("266"), Ok(266));
        for bad in ["", "0x", "0x1_0", "4294967296", "-1"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_template_is_written_as_it_is_read() {
        let text = format!(
            r#"{{"kvm_capabilities":["!56","171"],"cpuid_modifiers":[{{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{{"register":"eax","bitmap":"0b{}"}}]}}],"msr_modifiers":[{{"addr":"0x10a","bitmap":"0b{}"}}]}}"#,
            "x01x".repeat(8),
            "0x1x".repeat(16),
        );
        let template: CpuConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(
            template.kvm_capabilities,
            [KvmCapability::NotNeeded(56), KvmCapability::Needed(171)]
        );
        assert_eq!(serde_json::to_string(&template).unwrap(), text);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let named = |json: serde_json::Value| there_or_named(json);
        assert_eq!(
            named(file.path().to_str().into()).unwrap(),
            Some(template.clone())
        );
        assert_eq!(
            named(serde_json::from_str(&text).unwrap()).unwrap(),
            Some(template)
        );
        assert_eq!(named(serde_json::Value::Null).unwrap(), None);
        let error = named("/nowhere".into()).unwrap_err().to_string();
        assert!(error.contains("CPU template /nowhere: No such file"), "{error}");
        let arm = r#"{"reg_modifiers": []}"#;
        let error = serde_json::from_str::<CpuConfig>(arm).unwrap_err().to_string();
        assert!(error.contains("reg_modifiers"), "{error}");
    }
}
