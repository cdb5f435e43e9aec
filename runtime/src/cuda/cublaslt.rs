//! Products of matrices by cuBLASLt, NVIDIA's library, found when a GPU is first used.
//!
//! `LAZULI_CUBLASLT` says where it lies, where that is no usual place (see `library`). Types and numbers are those of the
//! library's header, through cudarc; the functions are taken from the file that was found, since cudarc looks for bare names and panics
//! where a function is missing.
//!
//! The library's matrices are columns one after the other, Lazuli's are rows. So a product is asked for transposed: the columns of `right'
//! left'` are the rows of `left right`, and a number for each column of the result is one for each row there, which is what the library
//! calls a bias.
//!
//! A product is described once: descriptors and the algorithm that the library's heuristics recommend are kept by what is multiplied, and by
//! how far the matrices are aligned, on which that depends. Sums are added up in the accumulator's type wherever several blocks share
//! one, and `f32` is multiplied as such where TF32 is not asked for.

use super::driver::{Address, Failure, FailureKind, Matrices, Outcome};
use super::library::{self, symbol};
use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as DescAttribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasLtMatrixLayout_t,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute, cublasLtReductionScheme_t, cudaDataType,
};
use lazuli_ir::matmul::{Activation, MatrixStrides};
use lazuli_ir::{DType, Error, ErrorKind, Matmul, Result};
use libloading::Library;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A status of the library, by its number: later versions may have others.
type Status = c_int;

/// The library's functions. They stay loaded for the life of the process.
struct CublasLt {
    path: PathBuf,
    version: usize,
    create: unsafe extern "C" fn(*mut cublasLtHandle_t) -> Status,
    desc_create: unsafe extern "C" fn(*mut cublasLtMatmulDesc_t, cublasComputeType_t, cudaDataType) -> Status,
    desc_set: unsafe extern "C" fn(cublasLtMatmulDesc_t, DescAttribute, *const c_void, usize) -> Status,
    desc_destroy: unsafe extern "C" fn(cublasLtMatmulDesc_t) -> Status,
    layout_create: unsafe extern "C" fn(*mut cublasLtMatrixLayout_t, cudaDataType, u64, u64, i64) -> Status,
    layout_set: unsafe extern "C" fn(cublasLtMatrixLayout_t, LayoutAttribute, *const c_void, usize) -> Status,
    layout_destroy: unsafe extern "C" fn(cublasLtMatrixLayout_t) -> Status,
    preference_create: unsafe extern "C" fn(*mut cublasLtMatmulPreference_t) -> Status,
    preference_set:
        unsafe extern "C" fn(cublasLtMatmulPreference_t, PreferenceAttribute, *const c_void, usize) -> Status,
    preference_destroy: unsafe extern "C" fn(cublasLtMatmulPreference_t) -> Status,
    heuristic: Heuristic,
    matmul: Multiply,
    message: unsafe extern "C" fn(Status) -> *const c_char,
}

type Heuristic = unsafe extern "C" fn(
    cublasLtHandle_t,
    cublasLtMatmulDesc_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatmulPreference_t,
    c_int,
    *mut HeuristicResult,
    *mut c_int,
) -> Status;

type Multiply = unsafe extern "C" fn(
    cublasLtHandle_t,
    cublasLtMatmulDesc_t,
    *const c_void,
    *const c_void,
    cublasLtMatrixLayout_t,
    *const c_void,
    cublasLtMatrixLayout_t,
    *const c_void,
    *const c_void,
    cublasLtMatrixLayout_t,
    *mut c_void,
    cublasLtMatrixLayout_t,
    *const cublasLtMatmulAlgo_t,
    *mut c_void,
    usize,
    *mut c_void,
) -> Status;

/// As the header has it, but for the status, which is a number here.
#[repr(C)]
#[derive(Clone, Copy)]
struct HeuristicResult {
    algorithm: cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

#[cfg(not(windows))]
const NAMES: &[&str] = &["libcublasLt.so.13"];
#[cfg(windows)]
const NAMES: &[&str] = &["cublasLt64_13.dll"];

/// The library's version, as it writes it: `130100` is 13.1.0.
///
/// # Errors
/// There is none.
pub fn version() -> Result<usize> {
    Ok(load()?.version)
}

/// Where the library was found.
///
/// # Errors
/// There is none.
pub fn path() -> Result<PathBuf> {
    Ok(load()?.path.clone())
}

fn load() -> Result<&'static CublasLt> {
    static FOUND: OnceLock<Result<CublasLt>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<CublasLt> {
    let found = library::find("LAZULI_CUBLASLT", NAMES, CublasLt::load).map_err(|tried| {
        let message = format!(
            "cuBLASLt, NVIDIA's library for products of matrices, was not found{tried}; install it with `pip install \
             nvidia-cublas==13.*` and set LAZULI_CUBLASLT to the folder of its libcublasLt.so.13, or install the CUDA toolkit \
             13; without it contractions are loops"
        );
        Error::new(ErrorKind::Device, message)
    })?;
    tracing::debug!(path = %found.path.display(), version = found.version, "cuBLASLt");
    Ok(found)
}

impl CublasLt {
    fn load(place: &Path) -> std::result::Result<CublasLt, String> {
        // SAFETY: a library of CUDA whose initialisers do nothing but set themselves up.
        let library = unsafe { Library::new(place) }.map_err(|e| e.to_string())?;
        // SAFETY: the types are those of the header of version 13; the library is never unloaded, so the functions stay where
        // they are.
        let found = unsafe {
            let version: unsafe extern "C" fn() -> usize = symbol(&library, c"cublasLtGetVersion")?;
            CublasLt {
                path: place.to_owned(),
                version: version(),
                create: symbol(&library, c"cublasLtCreate")?,
                desc_create: symbol(&library, c"cublasLtMatmulDescCreate")?,
                desc_set: symbol(&library, c"cublasLtMatmulDescSetAttribute")?,
                desc_destroy: symbol(&library, c"cublasLtMatmulDescDestroy")?,
                layout_create: symbol(&library, c"cublasLtMatrixLayoutCreate")?,
                layout_set: symbol(&library, c"cublasLtMatrixLayoutSetAttribute")?,
                layout_destroy: symbol(&library, c"cublasLtMatrixLayoutDestroy")?,
                preference_create: symbol(&library, c"cublasLtMatmulPreferenceCreate")?,
                preference_set: symbol(&library, c"cublasLtMatmulPreferenceSetAttribute")?,
                preference_destroy: symbol(&library, c"cublasLtMatmulPreferenceDestroy")?,
                heuristic: symbol(&library, c"cublasLtMatmulAlgoGetHeuristic")?,
                matmul: symbol(&library, c"cublasLtMatmul")?,
                message: symbol(&library, c"cublasLtGetStatusString")?,
            }
        };
        std::mem::forget(library);
        Ok(found)
    }

    fn check(&self, status: Status, call: &'static str) -> Outcome {
        /// The library could not allocate.
        const ALLOC_FAILED: Status = 3;
        /// Work on the device failed.
        const EXECUTION_FAILED: Status = 13;
        let kind = match status {
            0 => return Ok(()),
            ALLOC_FAILED => FailureKind::OutOfMemory,
            EXECUTION_FAILED => FailureKind::Lost,
            _ => FailureKind::Refused,
        };
        // SAFETY: the function returns a string of its own for any number.
        let text = unsafe { (self.message)(status) };
        let message = if text.is_null() {
            format!("status {status}")
        } else {
            // SAFETY: it is a string of the library that ends with a zero.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(Failure { kind, call, message })
    }
}

/// What a product is kept by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    matmul: Matmul,
    scratch_bytes: usize,
    /// Bytes to which the matrices are aligned: left, right, result; and the bias.
    alignment: [u32; 4],
}

/// Bytes of the widest load: matrices that are aligned to more are alike.
const WIDEST: u32 = 16;

impl Key {
    fn new(matmul: &Matmul, at: &Matrices) -> Key {
        let alignment = |bits: u64| WIDEST.min(1 << bits.trailing_zeros().min(8));
        let aligned = |at: Address, s: MatrixStrides, dtype: DType| {
            // Every matrix of every batch is.
            alignment(at.0 | ((s.outer | s.batch).unsigned_abs() * dtype.size() as u64))
        };
        let left = aligned(at.left, matmul.left, matmul.operands);
        let right = aligned(at.right, matmul.right, matmul.operands);
        let result = aligned(at.result, matmul.out, matmul.result);
        let bias = alignment(at.bias.map_or(0, |bias| bias.0));
        Key { matmul: matmul.clone(), scratch_bytes: at.scratch_bytes, alignment: [left, right, result, bias] }
    }
}

/// The library on one device.
pub(super) struct Products {
    library: &'static CublasLt,
    handle: cublasLtHandle_t,
    plans: Mutex<FxHashMap<Key, Plan>>,
}

impl fmt::Debug for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuBLASLt {}", self.library.version)
    }
}

// SAFETY: the library's handles may be used from any thread; plans are behind a lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

/// Products that are kept; beyond it all are described anew.
const CAPACITY: usize = 4096;

impl Products {
    /// The library on the device that is current on this thread; it stays for the life of the process.
    ///
    /// # Errors
    /// There is no library, or it does not start.
    pub(super) fn open() -> Result<Products> {
        let library = load()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle has a place.
        library.check(unsafe { (library.create)(&mut handle) }, "cublasLtCreate").map_err(|f| f.error())?;
        Ok(Products { library, handle, plans: Mutex::default() })
    }

    fn plans(&self) -> MutexGuard<'_, FxHashMap<Key, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the library has no algorithm for such matrices, where they begin as storage does.
    pub(super) fn check(&self, matmul: &Matmul, scratch_bytes: usize) -> Outcome {
        let (at, bias) = (Address(0), matmul.bias.then_some(Address(0)));
        let key = Key::new(matmul, &Matrices { left: at, right: at, bias, result: at, scratch: at, scratch_bytes });
        self.with_plan(key, |_| Ok(()))
    }

    /// Does something with a product, which is described where it is not known.
    fn with_plan(&self, key: Key, act: impl FnOnce(&mut Plan) -> Outcome) -> Outcome {
        let mut plans = self.plans();
        if plans.len() >= CAPACITY && !plans.contains_key(&key) {
            plans.clear();
        }
        let plan = match plans.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let plan = Plan::new(self.library, self.handle, new.key())?;
                new.insert(plan)
            }
        };
        act(plan)
    }

    /// Whether such a product ran before.
    pub(super) fn has_run(&self, matmul: &Matmul, at: &Matrices) -> bool {
        self.plans().get(&Key::new(matmul, at)).is_some_and(|plan| plan.has_run)
    }

    /// Multiplies on a stream.
    ///
    /// # Safety
    /// What is read, written and used must lie within allocations of the device that are not freed before; the device must be
    /// current on this thread, and the stream one of its.
    pub(super) unsafe fn multiply(&self, matmul: &Matmul, at: &Matrices, stream: *mut c_void) -> Outcome {
        // SAFETY: by the contract.
        self.with_plan(Key::new(matmul, at), |plan| unsafe { plan.run(self.handle, matmul, at, stream) })
    }
}

/// A product as the library knows it.
struct Plan {
    library: &'static CublasLt,
    desc: cublasLtMatmulDesc_t,
    /// The right operand, the left one, the result.
    layouts: [cublasLtMatrixLayout_t; 3],
    algorithm: cublasLtMatmulAlgo_t,
    has_run: bool,
}

// SAFETY: descriptors are memory of the library that whoever has the plan alone touches.
unsafe impl Send for Plan {}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: whatever was created is destroyed once, and nobody uses it any more. Null is not.
        unsafe {
            if !self.desc.is_null() {
                (self.library.desc_destroy)(self.desc);
            }
            for layout in self.layouts.into_iter().filter(|l| !l.is_null()) {
                (self.library.layout_destroy)(layout);
            }
        }
    }
}

fn data_type(dtype: DType) -> Outcome<cudaDataType> {
    match dtype {
        DType::F32 => Ok(cudaDataType::CUDA_R_32F),
        DType::F64 => Ok(cudaDataType::CUDA_R_64F),
        DType::F16 => Ok(cudaDataType::CUDA_R_16F),
        DType::BF16 => Ok(cudaDataType::CUDA_R_16BF),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => Err(Failure {
            kind: FailureKind::Refused,
            call: "cublasLtMatmul",
            message: format!("there are no products of {dtype}"),
        }),
    }
}

/// Whether rows of a matrix are neighbours, so that the library's matrix is this one and not its transpose; and the distance of its
/// columns there.
fn stored(s: MatrixStrides, columns: usize) -> (bool, i64) {
    if s.column == 1 && s.row >= columns as i64 { (false, s.row) } else { (true, s.column) }
}

impl Plan {
    fn new(library: &'static CublasLt, handle: cublasLtHandle_t, key: &Key) -> Outcome<Plan> {
        let mut plan = Plan::described(library, &key.matmul)?;
        if key.matmul.bias {
            // Where it lies is told by each run; whoever asks for an algorithm must have told some place, aligned alike.
            plan.describe(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &u64::from(key.alignment[3]))?;
        }
        let mut preference = std::ptr::null_mut();
        // SAFETY: the preference has a place.
        library.check(unsafe { (library.preference_create)(&mut preference) }, "cublasLtMatmulPreferenceCreate")?;
        let found = plan.choose(handle, key, preference);
        // SAFETY: it was just created, and nobody uses it any more.
        unsafe { (library.preference_destroy)(preference) };
        plan.algorithm = found?;
        Ok(plan)
    }

    /// The descriptors of a product, without an algorithm.
    fn described(library: &'static CublasLt, m: &Matmul) -> Outcome<Plan> {
        let algorithm = cublasLtMatmulAlgo_t { data: [0; 8] };
        let mut plan =
            Plan { library, desc: std::ptr::null_mut(), layouts: [std::ptr::null_mut(); 3], algorithm, has_run: false };
        let compute = match (m.acc, m.tf32) {
            (DType::F64, _) => cublasComputeType_t::CUBLAS_COMPUTE_64F,
            (_, true) => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            (_, false) => cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        // SAFETY: the descriptor has a place.
        let made = unsafe { (library.desc_create)(&mut plan.desc, compute, data_type(m.acc)?) };
        library.check(made, "cublasLtMatmulDescCreate")?;
        let (operands, result) = (data_type(m.operands)?, data_type(m.result)?);
        let (right, left) = (stored(m.right, m.columns), stored(m.left, m.terms));
        // 0 is as it lies, 1 transposed.
        plan.describe(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(right.0))?;
        plan.describe(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(left.0))?;
        let epilogue = match (m.bias, m.activation) {
            (false, Activation::Identity) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            (true, Activation::Identity) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            (false, Activation::Gelu) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
            (true, Activation::Gelu) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        plan.describe(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        if m.bias {
            plan.describe(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &result)?;
        }
        let of =
            |index: usize, rows, columns, distance, ty, batch| (index, Shape { rows, columns, distance, batch }, ty);
        let turn = |(transposed, _), rows, columns| if transposed { (columns, rows) } else { (rows, columns) };
        let (a, b) = (turn(right, m.columns, m.terms), turn(left, m.terms, m.rows));
        for (index, shape, ty) in [
            of(0, a.0, a.1, right.1, operands, m.right.batch),
            of(1, b.0, b.1, left.1, operands, m.left.batch),
            of(2, m.columns, m.rows, m.out.row, result, m.out.batch),
        ] {
            plan.lay_out(index, &shape, ty, m.batch)?;
        }
        Ok(plan)
    }

    fn describe<T>(&self, attribute: DescAttribute, value: &T) -> Outcome {
        // SAFETY: the descriptor exists, and the library reads so many bytes of the value.
        let set =
            unsafe { (self.library.desc_set)(self.desc, attribute, std::ptr::from_ref(value).cast(), size_of::<T>()) };
        self.library.check(set, "cublasLtMatmulDescSetAttribute")
    }

    fn lay_out(&mut self, index: usize, shape: &Shape, ty: cudaDataType, batch: usize) -> Outcome {
        let Shape { rows, columns, distance, batch: stride } = *shape;
        let layout = &mut self.layouts[index];
        // SAFETY: the descriptor has a place.
        let made = unsafe { (self.library.layout_create)(layout, ty, rows as u64, columns as u64, distance) };
        self.library.check(made, "cublasLtMatrixLayoutCreate")?;
        let count = batch as i32;
        // SAFETY: the descriptor was just created, and the library reads so many bytes of the values.
        let set = unsafe {
            [
                (LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, (&raw const count).cast(), size_of::<i32>()),
                (
                    LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                    (&raw const stride).cast(),
                    size_of::<i64>(),
                ),
            ]
            .map(|(attribute, value, bytes)| (self.library.layout_set)(*layout, attribute, value, bytes))
        };
        set.into_iter().try_for_each(|status| self.library.check(status, "cublasLtMatrixLayoutSetAttribute"))
    }

    /// The algorithm that the library recommends.
    fn choose(
        &self,
        handle: cublasLtHandle_t,
        key: &Key,
        preference: cublasLtMatmulPreference_t,
    ) -> Outcome<cublasLtMatmulAlgo_t> {
        self.prefer(preference, PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &key.scratch_bytes)?;
        // Never in the result's type: sums are exact to the accumulator's.
        let shared = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        self.prefer(preference, PreferenceAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &shared)?;
        let [left, right, result, _] = key.alignment;
        for (attribute, bytes) in [
            (PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, result),
            (PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, result),
        ] {
            self.prefer(preference, attribute, &bytes)?;
        }
        let algorithm = cublasLtMatmulAlgo_t { data: [0; 8] };
        let mut found = HeuristicResult { algorithm, workspace_bytes: 0, state: -1, waves: 0.0, reserved: [0; 4] };
        let mut count: c_int = 0;
        let [a, b, d] = self.layouts;
        // SAFETY: all descriptors exist, and there is room for the one result that is asked for.
        let asked =
            unsafe { (self.library.heuristic)(handle, self.desc, a, b, d, d, preference, 1, &mut found, &mut count) };
        self.library
            .check(asked, "cublasLtMatmulAlgoGetHeuristic")
            .map_err(|f| Failure { message: format!("{}, for {}", f.message, key.matmul), ..f })?;
        if count < 1 || found.state != 0 {
            return Err(Failure {
                kind: FailureKind::Refused,
                call: "cublasLtMatmulAlgoGetHeuristic",
                message: format!("the library has no algorithm for {}", key.matmul),
            });
        }
        Ok(found.algorithm)
    }

    fn prefer<T>(&self, preference: cublasLtMatmulPreference_t, attribute: PreferenceAttribute, value: &T) -> Outcome {
        // SAFETY: the preference exists, and the library reads so many bytes of the value.
        let set = unsafe {
            (self.library.preference_set)(preference, attribute, std::ptr::from_ref(value).cast(), size_of::<T>())
        };
        self.library.check(set, "cublasLtMatmulPreferenceSetAttribute")
    }

    /// # Safety
    /// As for [`Products::multiply`].
    unsafe fn run(&mut self, handle: cublasLtHandle_t, m: &Matmul, at: &Matrices, stream: *mut c_void) -> Outcome {
        if let Some(bias) = at.bias {
            self.describe(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.0)?;
        }
        let (one, zero, one_wide, zero_wide) = (1.0f32, 0.0f32, 1.0f64, 0.0f64);
        let (alpha, beta): (*const c_void, *const c_void) = if m.acc == DType::F64 {
            ((&raw const one_wide).cast(), (&raw const zero_wide).cast())
        } else {
            ((&raw const one).cast(), (&raw const zero).cast())
        };
        let [a, b, d] = self.layouts;
        for outer in 0..m.outer as i64 {
            let moved = |at: Address, s: MatrixStrides, dtype: DType| {
                at.0.wrapping_add_signed(outer * s.outer * dtype.size() as i64) as *mut c_void
            };
            let left = moved(at.left, m.left, m.operands);
            let right = moved(at.right, m.right, m.operands);
            let result = moved(at.result, m.out, m.result);
            let scratch = at.scratch.0 as *mut c_void;
            // SAFETY: all descriptors exist; the factors are of the accumulator's type and are read before the call returns; the rest
            // is the contract.
            let submitted = unsafe {
                (self.library.matmul)(
                    handle,
                    self.desc,
                    alpha,
                    right,
                    a,
                    left,
                    b,
                    beta,
                    result,
                    d,
                    result,
                    d,
                    &self.algorithm,
                    scratch,
                    at.scratch_bytes,
                    stream,
                )
            };
            self.library.check(submitted, "cublasLtMatmul")?;
        }
        self.has_run = true;
        Ok(())
    }
}

/// A matrix as the library has it: columns one after the other.
struct Shape {
    rows: usize,
    columns: usize,
    /// From a column to the next.
    distance: i64,
    /// From a matrix to the next.
    batch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(left: MatrixStrides, right: MatrixStrides) -> Matmul {
        Matmul {
            outer: 1,
            batch: 4,
            rows: 64,
            columns: 96,
            terms: 128,
            operands: DType::BF16,
            result: DType::BF16,
            acc: DType::F32,
            left,
            right,
            out: MatrixStrides { outer: 0, batch: 64 * 96, row: 96, column: 1 },
            bias: true,
            activation: Activation::Gelu,
            tf32: false,
        }
    }

    #[test]
    fn cuda_products_are_kept_by_alignment() {
        let rows = MatrixStrides { outer: 0, batch: 8192, row: 128, column: 1 };
        let m = product(rows, MatrixStrides { outer: 0, batch: 0, row: 96, column: 1 });
        let at = |left| Matrices {
            left: Address(left),
            right: Address(512),
            bias: None,
            result: Address(1 << 20),
            scratch: Address(4096),
            scratch_bytes: 1 << 20,
        };
        assert!(Key::new(&m, &at(1024)) == Key::new(&m, &at(1040)));
        assert!(Key::new(&m, &at(1024)) != Key::new(&m, &at(1026)));
        assert_eq!(Key::new(&m, &at(1026)).alignment, [2, 16, 16, 16]);
        let biased = Matrices { bias: Some(Address(1028)), ..at(1024) };
        assert_eq!(Key::new(&m, &biased).alignment, [16, 16, 16, 4]);
        assert_eq!((stored(rows, 128), stored(rows.transposed(), 64)), ((false, 128), (true, 128)));
        assert_eq!(stored(MatrixStrides { outer: 0, batch: 0, row: 1, column: 64 }, 1), (true, 64));
    }

    #[test]
    fn cuda_cublaslt_is_found_or_its_absence_says_what_to_install() {
        let library = match load() {
            Ok(library) => library,
            Err(error) => {
                assert!(error.message().contains("libcublasLt.so.13"), "{error}");
                println!("cuBLASLt was not tested: {}", error.message());
                return;
            }
        };
        assert!(library.version >= 130_000, "{}", library.version);
        // Descriptors need no device.
        let rows = MatrixStrides { outer: 0, batch: 8192, row: 128, column: 1 };
        let columns = MatrixStrides { outer: 0, batch: 0, row: 1, column: 128 };
        for m in [product(rows, columns), Matmul { tf32: true, operands: DType::F32, ..product(rows, columns) }] {
            let plan = Plan::described(library, &m).unwrap();
            assert!(!plan.desc.is_null() && plan.layouts.iter().all(|l| !l.is_null()));
        }
        assert!(Plan::described(library, &Matmul { operands: DType::I64, ..product(rows, columns) }).is_err());
        let error = library.check(15, "cublasLtMatmul").unwrap_err();
        assert!(error.message.contains("not supported"), "{error}");
    }
}
