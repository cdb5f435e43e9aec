//! NVIDIA's driver, through cudarc.
//!
//! cudarc loads the driver's library when its first function is called, and panics where there is none, or where it is too
//! old to have a function. So [`probe`] looks for both before anything else is called.

use super::cublaslt::Products;
use super::driver::{
    Address, Driver, Event, Failure, FailureKind, Footprint, Function, Graph, GraphExec, Matrices, Module, Node,
    Outcome, Properties, Shape,
};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUresult};
use lazuli_ir::{Error, ErrorKind, Matmul, MatmulRoutine, Result};
use smallvec::SmallVec;
use std::ffi::{CString, c_int, c_void};
use std::sync::OnceLock;

/// The oldest driver that runs what NVRTC 13 compiles, as the driver writes versions.
const OLDEST: c_int = 13000;

/// The number of devices. Fails where there is no driver, where it is too old, and where there is no device.
pub(crate) fn probe() -> Result<usize> {
    static FOUND: OnceLock<Result<usize>> = OnceLock::new();
    FOUND.get_or_init(look).clone()
}

fn look() -> Result<usize> {
    let error = |message: String| Err(Error::new(ErrorKind::Device, message));
    // SAFETY: opens a library of the system, whose initialisers do nothing but set it up.
    if !unsafe { sys::is_culib_present() } {
        return error(
            "there is no NVIDIA driver on this machine (libcuda.so.1 was not found); install NVIDIA's driver, version \
             580 or newer, or use Device::Cpu"
                .to_owned(),
        );
    }
    if let Err(e) = result::init() {
        return error(match e.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => no_device(),
            CUresult::CUDA_ERROR_STUB_LIBRARY => {
                "libcuda.so is the toolkit's stub and no driver; install NVIDIA's driver, \
                version 580 or newer, and take the folder of stubs out of LD_LIBRARY_PATH"
                    .to_owned()
            }
            _ => format!("the NVIDIA driver does not start: {}", words(e)),
        });
    }
    let mut version: c_int = 0;
    // SAFETY: the driver is there, and the number has a place.
    if let Err(e) = unsafe { sys::cuDriverGetVersion(&mut version) }.result() {
        return error(format!("the NVIDIA driver does not tell its version: {}", words(e)));
    }
    if version < OLDEST {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return error(format!(
            "the NVIDIA driver is too old: it knows CUDA {major}.{minor}, and CUDA 13.0 is needed; install NVIDIA's driver, \
             version 580 or newer"
        ));
    }
    match result::device::get_count() {
        Ok(n) if n > 0 => Ok(n as usize),
        Ok(_) => error(no_device()),
        Err(e) => error(format!("the NVIDIA driver does not tell its devices: {}", words(e))),
    }
}

fn no_device() -> String {
    "there is an NVIDIA driver, but no GPU that it shows to this process; see `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use \
     Device::Cpu"
        .to_owned()
}

fn words(e: DriverError) -> String {
    match e.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), e.0),
        Err(_) => format!("{:?}", e.0),
    }
}

/// An opened device: its primary context and a stream.
#[derive(Debug)]
pub(crate) struct Nvidia {
    properties: Properties,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// cuBLASLt, where it was found.
    products: Option<Products>,
}

// SAFETY: contexts and streams of the driver may be used from any thread, once the context is current there (see `enter`).
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

trait Named<T> {
    fn named(self, call: &'static str) -> Outcome<T>;
}

impl<T> Named<T> for std::result::Result<T, DriverError> {
    fn named(self, call: &'static str) -> Outcome<T> {
        self.map_err(|e| Failure { kind: kind(e.0), call, message: words(e) })
    }
}

fn kind(code: CUresult) -> FailureKind {
    match code {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => FailureKind::OutOfMemory,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_ASSERT
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_CONTAINED
        | CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_DEINITIALIZED
        | CUresult::CUDA_ERROR_UNKNOWN => FailureKind::Lost,
        _ => FailureKind::Refused,
    }
}

impl Nvidia {
    /// Opens a device. [`probe`] must have found it.
    pub(crate) fn open(ordinal: usize) -> Outcome<Nvidia> {
        let device = result::device::get(ordinal as c_int).named("cuDeviceGet")?;
        // SAFETY: the device exists; the context is retained for the life of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.named("cuDevicePrimaryCtxRetain")?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.named("cuCtxSetCurrent")?;
        // A stream of its own, since the default one cannot be captured.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).named("cuStreamCreate")?;
        let products = match Products::open() {
            Ok(products) => Some(products),
            Err(error) => {
                tracing::warn!(target: "lazuli::cuda", "{}", error.message());
                None
            }
        };
        Ok(Nvidia { properties: properties(device)?, context, stream, products })
    }

    fn products(&self) -> Outcome<&Products> {
        let message = || "cuBLASLt was not found when the device was opened".to_owned();
        let refused = || Failure { kind: FailureKind::Refused, call: "cublasLtMatmul", message: message() };
        self.products.as_ref().ok_or_else(refused)
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Outcome {
        // SAFETY: the context is retained for the life of the process.
        unsafe { result::ctx::set_current(self.context) }.named("cuCtxSetCurrent")
    }
}

fn properties(device: sys::CUdevice) -> Outcome<Properties> {
    let attribute = |which: CUdevice_attribute| {
        // SAFETY: the device exists.
        unsafe { result::device::get_attribute(device, which) }.named("cuDeviceGetAttribute").map(|n| n.max(0) as u32)
    };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Properties {
        name: result::device::get_name(device).named("cuDeviceGetName")?,
        sm: major * 10 + minor,
        // SAFETY: the device exists.
        memory: unsafe { result::device::total_mem(device) }.named("cuDeviceTotalMem")? as u64,
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        resident_threads: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        shared_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.into(),
        l2_bytes: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
    })
}

/// The address of each word, as the driver takes arguments.
fn arguments(words: &[u64]) -> SmallVec<[*mut c_void; 32]> {
    words.iter().map(|w| std::ptr::from_ref(w).cast_mut().cast()).collect()
}

/// Shared memory that every function may have; more must be asked for.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

impl Driver for Nvidia {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory(&self) -> Outcome<(u64, u64)> {
        self.enter()?;
        result::mem_get_info().map(|(free, all)| (free as u64, all as u64)).named("cuMemGetInfo")
    }

    fn allocate(&self, bytes: usize) -> Outcome<Address> {
        self.enter()?;
        // SAFETY: the stream exists, and everything that uses the memory runs on it.
        unsafe { result::malloc_async(self.stream, bytes) }.map(Address).named("cuMemAllocAsync")
    }

    fn free(&self, at: Address) -> Outcome {
        self.enter()?;
        // SAFETY: the address came from `allocate`, and its owner gives it up.
        unsafe { result::free_async(at.0, self.stream) }.named("cuMemFreeAsync")
    }

    fn allocate_pinned(&self, bytes: usize) -> Outcome<*mut u8> {
        self.enter()?;
        // SAFETY: without flags: memory that the host reads and writes through its caches.
        unsafe { result::malloc_host(bytes, 0) }.map(<*mut c_void>::cast).named("cuMemHostAlloc")
    }

    unsafe fn copy_up(&self, to: Address, from: *const u8, bytes: usize) -> Outcome {
        self.enter()?;
        // SAFETY: by the contract.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to.0, from.cast(), bytes, self.stream) }.result().named("cuMemcpyHtoDAsync")
    }

    unsafe fn copy_down(&self, to: *mut u8, from: Address, bytes: usize) -> Outcome {
        self.enter()?;
        // SAFETY: by the contract.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from.0, bytes, self.stream) }.result().named("cuMemcpyDtoHAsync")
    }

    unsafe fn fill(&self, at: Address, byte: u8, bytes: usize) -> Outcome {
        self.enter()?;
        // SAFETY: by the contract.
        unsafe { result::memset_d8_async(at.0, byte, bytes, self.stream) }.named("cuMemsetD8Async")
    }

    fn load(&self, cubin: &[u8]) -> Outcome<Module> {
        self.enter()?;
        // SAFETY: the image is a cubin: it came from the compiler, or from the cache, which checks its sum.
        unsafe { result::module::load_data(cubin.as_ptr().cast()) }.map(|m| Module(m as u64)).named("cuModuleLoadData")
    }

    fn unload(&self, module: Module) -> Outcome {
        self.enter()?;
        // SAFETY: the module came from `load`, and its owner gives it up.
        unsafe { result::module::unload(module.0 as sys::CUmodule) }.named("cuModuleUnload")
    }

    fn function(&self, module: Module, name: &str, shared_bytes: u32) -> Outcome<Function> {
        self.enter()?;
        let refused = |_| Failure {
            kind: FailureKind::Refused,
            call: "cuModuleGetFunction",
            message: "a name with a zero byte".to_owned(),
        };
        let name = CString::new(name).map_err(refused)?;
        // SAFETY: the module came from `load`.
        let function = unsafe { result::module::get_function(module.0 as sys::CUmodule, name) };
        let function = function.named("cuModuleGetFunction")?;
        if shared_bytes > PLAIN_SHARED_BYTES {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, attribute, shared_bytes as c_int) }
                .named("cuFuncSetAttribute")?;
        }
        Ok(Function(function as u64))
    }

    fn footprint(&self, function: Function, shape: Shape) -> Outcome<Footprint> {
        self.enter()?;
        let function = function.0 as sys::CUfunction;
        let attribute = |which: CUfunction_attribute| {
            let mut value: c_int = 0;
            // SAFETY: the function came from `function`, and the number has a place.
            let got = unsafe { sys::cuFuncGetAttribute(&mut value, which, function) };
            got.result().map(|()| value.max(0) as u32).named("cuFuncGetAttribute")
        };
        let mut blocks: c_int = 0;
        let (threads, shared) = (shape.threads as c_int, shape.shared_bytes as usize);
        // SAFETY: as above.
        unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, threads, shared) }
            .result()
            .named("cuOccupancyMaxActiveBlocksPerMultiprocessor")?;
        Ok(Footprint {
            registers: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            shared_bytes: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            resident_blocks: blocks.max(0) as u32,
        })
    }

    unsafe fn launch(&self, function: Function, shape: Shape, words: &[u64]) -> Outcome {
        self.enter()?;
        let mut arguments = arguments(words);
        // SAFETY: by the contract; the driver reads the words before it returns.
        unsafe {
            result::launch_kernel(
                function.0 as sys::CUfunction,
                (shape.blocks, 1, 1),
                (shape.threads, 1, 1),
                shape.shared_bytes,
                self.stream,
                &mut arguments,
            )
        }
        .named("cuLaunchKernel")
    }

    fn matmul_routine(&self) -> Option<MatmulRoutine> {
        self.products.as_ref().map(|_| MatmulRoutine::cublaslt(self.properties.sm))
    }

    fn check_matmul(&self, matmul: &Matmul, scratch_bytes: usize) -> Outcome {
        self.enter()?;
        self.products()?.check(matmul, scratch_bytes)
    }

    fn has_run(&self, matmul: &Matmul, at: &Matrices) -> bool {
        self.products.as_ref().is_some_and(|p| p.has_run(matmul, at))
    }

    unsafe fn matmul(&self, matmul: &Matmul, at: &Matrices) -> Outcome {
        self.enter()?;
        // SAFETY: by the contract; the device is current, and the stream is its own.
        unsafe { self.products()?.multiply(matmul, at, self.stream.cast()) }
    }

    fn begin_capture(&self) -> Outcome {
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream exists.
        unsafe { result::stream::begin_capture(self.stream, mode) }.named("cuStreamBeginCapture")
    }

    fn captured(&self) -> Outcome<Node> {
        const CALL: &str = "cuStreamGetCaptureInfo";
        self.enter()?;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let mut last: *const sys::CUgraphNode = std::ptr::null();
        let (mut edges, mut count): (*const sys::CUgraphEdgeData, usize) = (std::ptr::null(), 0);
        let none = std::ptr::null_mut();
        // SAFETY: the stream exists, and all that is asked for has a place.
        unsafe {
            sys::cuStreamGetCaptureInfo_v3(
                self.stream,
                &mut status,
                none,
                none.cast(),
                &mut last,
                &mut edges,
                &mut count,
            )
        }
        .result()
        .named(CALL)?;
        // What is recorded next waits for the launch before, and for nothing else, since there is one stream.
        if count != 1 || last.is_null() {
            let message = format!("{count} launches are the last of a capture");
            return Err(Failure { kind: FailureKind::Refused, call: CALL, message });
        }
        // SAFETY: the driver points to that many nodes, until the stream is used again.
        Ok(Node(unsafe { *last } as u64))
    }

    fn end_capture(&self) -> Outcome<Graph> {
        self.enter()?;
        // SAFETY: the stream exists.
        let graph = unsafe { result::stream::end_capture(self.stream) }.named("cuStreamEndCapture")?;
        Ok(Graph(graph as u64))
    }

    fn instantiate(&self, graph: Graph) -> Outcome<GraphExec> {
        self.enter()?;
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph came from `end_capture`, and the result has a place.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph.0 as sys::CUgraph, 0) }
            .result()
            .named("cuGraphInstantiate")?;
        Ok(GraphExec(exec as u64))
    }

    fn update(&self, exec: GraphExec, graph: Graph) -> Outcome<bool> {
        self.enter()?;
        // SAFETY: a structure of numbers and pointers that the driver fills.
        let mut info: sys::CUgraphExecUpdateResultInfo = unsafe { std::mem::zeroed() };
        // SAFETY: both came from this driver.
        let code = unsafe { sys::cuGraphExecUpdate_v2(exec.0 as sys::CUgraphExec, graph.0 as sys::CUgraph, &mut info) };
        match code {
            CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE => Ok(false),
            code => code.result().map(|()| true).named("cuGraphExecUpdate"),
        }
    }

    unsafe fn give(&self, exec: GraphExec, node: Node, function: Function, shape: Shape, words: &[u64]) -> Outcome {
        self.enter()?;
        let mut arguments = arguments(words);
        let params = sys::CUDA_KERNEL_NODE_PARAMS {
            func: function.0 as sys::CUfunction,
            gridDimX: shape.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: shape.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared_bytes,
            kernelParams: arguments.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        };
        let (exec, node) = (exec.0 as sys::CUgraphExec, node.0 as sys::CUgraphNode);
        // SAFETY: by the contract; the driver reads the words before it returns.
        unsafe { sys::cuGraphExecKernelNodeSetParams_v2(exec, node, &params) }
            .result()
            .named("cuGraphExecKernelNodeSetParams")
    }

    fn destroy_graph(&self, graph: Graph) -> Outcome {
        self.enter()?;
        // SAFETY: the graph came from `end_capture`, and its owner gives it up.
        unsafe { result::graph::destroy(graph.0 as sys::CUgraph) }.named("cuGraphDestroy")
    }

    fn destroy_exec(&self, exec: GraphExec) -> Outcome {
        self.enter()?;
        // SAFETY: the executable came from `instantiate`, and its owner gives it up.
        unsafe { result::graph::exec_destroy(exec.0 as sys::CUgraphExec) }.named("cuGraphExecDestroy")
    }

    unsafe fn launch_graph(&self, exec: GraphExec) -> Outcome {
        self.enter()?;
        // SAFETY: by the contract.
        unsafe { result::graph::launch(exec.0 as sys::CUgraphExec, self.stream) }.named("cuGraphLaunch")
    }

    fn create_event(&self) -> Outcome<Event> {
        self.enter()?;
        result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map(|e| Event(e as u64)).named("cuEventCreate")
    }

    fn record(&self, event: Event) -> Outcome {
        self.enter()?;
        // SAFETY: the event came from `create_event`.
        unsafe { result::event::record(event.0 as sys::CUevent, self.stream) }.named("cuEventRecord")
    }

    fn wait(&self, event: Event) -> Outcome {
        self.enter()?;
        // SAFETY: the event came from `create_event`.
        unsafe { result::event::synchronize(event.0 as sys::CUevent) }.named("cuEventSynchronize")
    }

    fn elapsed_us(&self, from: Event, to: Event) -> Outcome<f64> {
        self.enter()?;
        // SAFETY: both came from `create_event`.
        let ms = unsafe { result::event::elapsed(from.0 as sys::CUevent, to.0 as sys::CUevent) };
        ms.map(|ms| f64::from(ms) * 1e3).named("cuEventElapsedTime")
    }

    fn destroy_event(&self, event: Event) -> Outcome {
        self.enter()?;
        // SAFETY: the event came from `create_event`, and its owner gives it up.
        unsafe { result::event::destroy(event.0 as sys::CUevent) }.named("cuEventDestroy")
    }

    fn synchronise(&self) -> Outcome {
        self.enter()?;
        // SAFETY: the stream exists.
        unsafe { result::stream::synchronize(self.stream) }.named("cuStreamSynchronize")
    }
}
