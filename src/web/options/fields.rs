//! The values of an options object, read one by one, and what is said of one that is wrong.
//!
//! serde-wasm-bindgen ignores unknown keys, names no field in its errors and refuses `Infinity` for integers
//! (the documented default of `maxAttempts`), so keys are checked here and values decoded field by field.

use js_sys::{Function, Object, Reflect};
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

/// Longest time that an option can set: what `setTimeout` can wait for.
const MS_MAX: f64 = i32::MAX as f64;

/// An option that cannot be used.
pub(crate) struct InvalidOption {
    pub(super) code: &'static str,
    pub(super) option: String,
    pub(super) message: String,
}

impl From<InvalidOption> for JsValue {
    fn from(invalid: InvalidOption) -> Self {
        let error = js_sys::Error::new(&invalid.message);
        let _ = Reflect::set(&error, &"code".into(), &invalid.code.into());
        let _ = Reflect::set(&error, &"option".into(), &invalid.option.into());
        error.into()
    }
}

/// An object whose fields are read by name.
pub(super) struct Fields<'a> {
    prefix: &'a str,
    pub(super) object: Object,
}

impl<'a> Fields<'a> {
    pub(super) fn of(prefix: &'a str, value: &JsValue) -> Result<Self, InvalidOption> {
        if value.is_undefined() {
            return Ok(Self { prefix, object: Object::new() });
        }
        match value.dyn_ref::<Object>() {
            Some(object) if !value.is_function() && !js_sys::Array::is_array(value) => {
                Ok(Self { prefix, object: object.clone() })
            }
            _ => {
                let name = if prefix.is_empty() { "options" } else { prefix };
                Err(InvalidOption {
                    code: "invalid_option",
                    option: name.to_owned(),
                    message: format!("{name} takes an object, got {}", describe(value)),
                })
            }
        }
    }

    /// `null` counts as absent: it is the documented default of some options.
    pub(super) fn get(&self, name: &str) -> JsValue {
        Reflect::get(&self.object, &name.into())
            .ok()
            .filter(|value| !value.is_null())
            .unwrap_or(JsValue::UNDEFINED)
    }

    /// No keys but these.
    pub(super) fn only(&self, known: &[&[&str]]) -> Result<(), InvalidOption> {
        let known = || known.iter().flat_map(|names| names.iter().copied());
        for key in Object::keys(&self.object).iter().filter_map(|key| key.as_string()) {
            if known().any(|name| name == key) {
                continue;
            }
            let nearest = known().map(|name| (distance(&key, name), name)).min();
            let hint = match nearest {
                Some((distance, name)) if distance <= 3 => format!("; did you mean {}?", self.path(name)),
                _ => format!("; it takes {}", known().collect::<Vec<_>>().join(", ")),
            };
            let option = self.path(&key);
            return Err(InvalidOption {
                code: "invalid_option",
                message: format!("unknown option {option}{hint}"),
                option,
            });
        }
        Ok(())
    }

    pub(super) fn function(&self, name: &str) -> Result<Option<Function>, InvalidOption> {
        let value = self.get(name);
        if value.is_undefined() {
            return Ok(None);
        }
        value.dyn_into::<Function>().map(Some).map_err(|value| self.invalid(name, "a function", &value))
    }

    pub(super) fn number(&self, name: &str, min: f64, max: f64) -> Result<Option<f64>, InvalidOption> {
        let takes = || {
            if max.is_finite() {
                format!("a number from {min} to {max}")
            } else {
                format!("a number from {min}, or Infinity")
            }
        };
        let value = self.field::<f64>(name, &takes)?;
        match value {
            Some(number) if !(min..=max).contains(&number) => {
                Err(self.invalid(name, &takes(), &self.get(name)))
            }
            _ => Ok(value),
        }
    }

    pub(super) fn ms(&self, name: &str, min: f64) -> Result<Option<u64>, InvalidOption> {
        Ok(self.number(name, min, MS_MAX)?.map(|ms| ms as u64))
    }

    pub(super) fn count(&self, name: &str, min: f64) -> Result<Option<usize>, InvalidOption> {
        self.count_to(name, min, f64::from(1 << 30))
    }

    /// A whole number: what half an event is, each part of us would answer in its own way.
    pub(super) fn count_to(&self, name: &str, min: f64, max: f64) -> Result<Option<usize>, InvalidOption> {
        match self.number(name, min, max)? {
            Some(count) if count.fract() != 0.0 => {
                Err(self.invalid(name, &format!("a whole number from {min} to {max}"), &self.get(name)))
            }
            count => Ok(count.map(|count| count as usize)),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, InvalidOption> {
        self.field(name, &|| "true or false".to_owned())
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<String>, InvalidOption> {
        let text = self.field::<String>(name, &|| "a string that is not empty".to_owned())?;
        match text {
            Some(text) if text.is_empty() => {
                Err(self.invalid(name, "a string that is not empty", &text.into()))
            }
            text => Ok(text),
        }
    }

    pub(super) fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, InvalidOption> {
        let takes = || choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
        match self.field::<String>(name, &takes)? {
            Some(text) if !choices.contains(&text.as_str()) => {
                Err(self.invalid(name, &takes(), &text.into()))
            }
            text => Ok(text),
        }
    }

    pub(super) fn field<T: DeserializeOwned>(
        &self,
        name: &str,
        takes: &dyn Fn() -> String,
    ) -> Result<Option<T>, InvalidOption> {
        let value = self.get(name);
        if value.is_undefined() {
            return Ok(None);
        }
        serde_wasm_bindgen::from_value(value.clone())
            .map(Some)
            .map_err(|_| self.invalid(name, &takes(), &value))
    }

    pub(super) fn invalid(&self, name: &str, takes: &str, got: &JsValue) -> InvalidOption {
        let option = self.path(name);
        InvalidOption {
            code: "invalid_option",
            message: format!("option {option} takes {takes}, got {}", describe(got)),
            option,
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

/// A value as a person would name it; long ones are cut.
pub(super) fn describe(value: &JsValue) -> String {
    let text = match value.as_string() {
        Some(text) => format!("{text:?}"),
        None if value.is_function() => "a function".to_owned(),
        None if js_sys::Array::is_array(value) => "an array".to_owned(),
        None if value.is_null() => "null".to_owned(),
        None if value.is_object() => "an object".to_owned(),
        // Numbers, booleans, symbols.
        None => format!("{value:?}").trim_start_matches("JsValue(").trim_end_matches(')').to_owned(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("…".chars()).collect() } else { text }
}

/// Edits between two names, letter case aside.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replace.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
