//! A file of samples: tensors, and the cases that its metadata describe.

use crate::arguments::Unsupported;
use lazuli::Tensor;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// The samples of one operator.
pub struct Samples {
    bytes: Vec<u8>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// One call of an operator, and what it gives.
pub struct Case {
    /// The operator's PyTorch name.
    pub op: String,
    /// Arguments by position, as the file has them.
    pub args: Vec<Value>,
    /// Arguments by name.
    pub kwargs: serde_json::Map<String, Value>,
    /// The names of all tensors that go in: arguments, then cotangents.
    pub inputs: Vec<String>,
    /// The names of the tensors that come out.
    pub outputs: Vec<String>,
    /// An output's number, and its cotangent's name.
    pub cotangents: Vec<(usize, String)>,
    /// An input's name, and the name of its gradient.
    pub grads: Vec<(String, String)>,
    /// The dtype of its floats.
    pub dtype: String,
    /// The call as text, for messages.
    pub call: String,
}

impl Samples {
    pub fn read(path: &Path) -> Result<Samples, Failure> {
        let bytes = std::fs::read(path)?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| format!("{e:?}"))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get("cases")).ok_or("no `cases` in the metadata")?;
        let cases: Vec<Value> = serde_json::from_str(text)?;
        let cases = cases.iter().map(Case::new).collect::<Result<_, _>>()?;
        Ok(Samples { bytes, cases })
    }

    /// A tensor of the file.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Unsupported> {
        let broken = |e| Unsupported(format!("the file: {e:?}"));
        let file = SafeTensors::deserialize(&self.bytes).map_err(broken)?;
        let view = file.tensor(name).map_err(broken)?;
        let (data, shape) = (view.data(), view.shape());
        Ok(match view.dtype() {
            Dtype::F32 => Tensor::from_vec(words(data, f32::from_le_bytes), shape),
            Dtype::F64 => Tensor::from_vec(words(data, f64::from_le_bytes), shape),
            Dtype::F16 => Tensor::from_vec(words(data, lazuli::f16::from_le_bytes), shape),
            Dtype::BF16 => Tensor::from_vec(words(data, lazuli::bf16::from_le_bytes), shape),
            Dtype::I32 => Tensor::from_vec(words(data, i32::from_le_bytes), shape),
            Dtype::U8 => Tensor::from_vec(data.to_vec(), shape),
            Dtype::I64 => Tensor::from_vec(words(data, i64::from_le_bytes), shape),
            Dtype::BOOL => Tensor::from_vec(words(data, |[byte]| byte != 0), shape),
            other => return Err(Unsupported(format!("{other:?}").to_lowercase())),
        })
    }
}

fn words<const N: usize, T>(bytes: &[u8], word: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| word(*chunk)).collect()
}

impl Case {
    fn new(json: &Value) -> Result<Case, Failure> {
        let missing = |what: &str| format!("a case without `{what}`: {json}");
        let args = json["args"].as_array().ok_or_else(|| missing("args"))?.clone();
        let kwargs = json["kwargs"].as_object().ok_or_else(|| missing("kwargs"))?.clone();
        let mut seen = BTreeSet::new();
        let mut inputs = Vec::new();
        args.iter().chain(kwargs.values()).for_each(|argument| tensors(argument, &mut seen, &mut inputs));
        let mut cotangents = Vec::new();
        for (output, cotangent) in json["cotangents"].as_object().into_iter().flatten() {
            tensors(cotangent, &mut seen, &mut inputs);
            cotangents.push((output.parse()?, tensor(cotangent).ok_or_else(|| missing("cotangents"))?.to_owned()));
        }
        let outputs = json["outputs"].as_array().ok_or_else(|| missing("outputs"))?;
        let outputs = outputs.iter().map(|o| tensor(o).map(str::to_owned).ok_or_else(|| missing("outputs")));
        let mut grads = Vec::new();
        for (input, grad) in json["grads"].as_object().into_iter().flatten() {
            grads.push((input.clone(), tensor(grad).ok_or_else(|| missing("grads"))?.to_owned()));
        }
        Ok(Case {
            op: json["op"].as_str().ok_or_else(|| missing("op"))?.to_owned(),
            inputs,
            outputs: outputs.collect::<Result<_, _>>()?,
            cotangents,
            grads,
            dtype: json["dtype"].as_str().ok_or_else(|| missing("dtype"))?.to_owned(),
            call: format!("args={} kwargs={}", json["args"], json["kwargs"]),
            args,
            kwargs,
        })
    }
}

/// The name in `{"tensor": NAME}`.
pub fn tensor(value: &Value) -> Option<&str> {
    value.get("tensor")?.as_str()
}

/// The names of the tensors in an argument, each once.
fn tensors(value: &Value, seen: &mut BTreeSet<String>, out: &mut Vec<String>) {
    if let Some(name) = tensor(value)
        && seen.insert(name.to_owned())
    {
        out.push(name.to_owned());
    }
    value.as_array().into_iter().flatten().for_each(|part| tensors(part, seen, out));
}
