// NVIDIA's driver as its manual declares it, on memory of the host: what it is given is checked, and nothing is run. What is wrong is a line
// on stderr that begins with `libcuda: `. The environment says what the driver is like: DRIVER_VERSION, DRIVER_INIT (what cuInit gives), DRIVER_DEVICES,
// DRIVER_CAPABILITY (90 is 9.0), DRIVER_SYNC (what waiting gives).

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

typedef int Result;
typedef unsigned long long Address;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, UPDATE_FAILURE = 910, IN_CAPTURE = 900 };

#define DRIVER extern "C" __attribute__((visibility("default"))) Result

static int setting(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static Result wrong(const char* call, const char* what, Result code = INVALID_VALUE) {
    fprintf(stderr, "libcuda: %s: %s\n", call, what);
    return code;
}

struct Function { std::string name; int most_dynamic = 48 << 10; bool unloaded = false; };
struct Module { std::vector<Function*> functions; };
struct Node { Function* function; unsigned blocks, threads, shared; Address first; };
struct Graph { std::vector<Node*> nodes; };
struct Exec { Graph* of; std::vector<Node> nodes; };

// As the manual has it.
struct KernelNodeParams {
    void* function;
    unsigned grid[3], block[3], shared;
    void** params;
    void** extra;
    void* kernel;
    void* context;
};

static int the_context, the_stream;
static thread_local void* current;
static std::map<Address, size_t> memory;
static std::set<Graph*> graphs;
static Graph* capture;
static std::map<void*, double> events;
static double now;

static bool holds(Address at, size_t bytes) {
    auto next = memory.upper_bound(at);
    return next != memory.begin() && (--next, at + bytes <= next->first + next->second);
}

#define IN_CONTEXT if (!current) return wrong(__func__, "no context is current", INVALID_CONTEXT)
#define ON_STREAM(s) IN_CONTEXT; if ((s) != &the_stream) return wrong(__func__, "another stream", INVALID_HANDLE)
#define NO_CAPTURE if (capture) return wrong(__func__, "in a capture", IN_CAPTURE)

DRIVER cuInit(unsigned flags) { return flags ? wrong("cuInit", "flags") : setting("DRIVER_INIT", SUCCESS); }
// NVRTC asks for it where there is a driver: a table that begins with its size, here of nothing else.
DRIVER cuGetExportTable(const void** table, const void*) {
    static const size_t bytes = sizeof bytes;
    *table = &bytes;
    return SUCCESS;
}
DRIVER cuDriverGetVersion(int* version) { *version = setting("DRIVER_VERSION", 13000); return SUCCESS; }
DRIVER cuGetErrorString(Result code, const char** text) {
    static thread_local char buffer[40];
    snprintf(buffer, sizeof buffer, "code %d", code);
    *text = buffer;
    return SUCCESS;
}
DRIVER cuDeviceGetCount(int* count) { *count = setting("DRIVER_DEVICES", 1); return SUCCESS; }
DRIVER cuDeviceGet(int* device, int ordinal) { *device = ordinal; return SUCCESS; }
DRIVER cuDeviceGetName(char* name, int bytes, int) { snprintf(name, bytes, "A test's device"); return SUCCESS; }
DRIVER cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 1ull << 32; return SUCCESS; }
DRIVER cuDeviceGetAttribute(int* value, int which, int) {
    const int capability = setting("DRIVER_CAPABILITY", 90);
    switch (which) {
    case 16: *value = 132; return SUCCESS;             // multiprocessors
    case 38: *value = 50 << 20; return SUCCESS;        // bytes of second-level cache
    case 39: *value = 2048; return SUCCESS;            // threads of a multiprocessor
    case 75: *value = capability / 10; return SUCCESS;
    case 76: *value = capability % 10; return SUCCESS;
    case 97: *value = 227 << 10; return SUCCESS;       // shared memory that a block may ask for
    default: return wrong("cuDeviceGetAttribute", "an attribute that is not expected");
    }
}
DRIVER cuDevicePrimaryCtxRetain(void** context, int) { *context = &the_context; return SUCCESS; }
DRIVER cuCtxSetCurrent(void* context) {
    if (context != &the_context) return wrong("cuCtxSetCurrent", "another context", INVALID_CONTEXT);
    current = context;
    return SUCCESS;
}
DRIVER cuStreamCreate(void** stream, unsigned flags) {
    IN_CONTEXT;
    if (flags != 1) return wrong("cuStreamCreate", "it waits for the default stream");
    *stream = &the_stream;
    return SUCCESS;
}
DRIVER cuStreamSynchronize(void* stream) { ON_STREAM(stream); NO_CAPTURE; return setting("DRIVER_SYNC", SUCCESS); }
DRIVER cuMemGetInfo_v2(size_t* free, size_t* all) { IN_CONTEXT; *free = 1ull << 31; *all = 1ull << 32; return SUCCESS; }
DRIVER cuMemAllocAsync(Address* at, size_t bytes, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (bytes == 0) return wrong("cuMemAllocAsync", "no bytes");
    if (bytes > 1ull << 31) return OUT_OF_MEMORY;
    *at = (Address)aligned_alloc(512, (bytes + 511) / 512 * 512);
    memset((void*)*at, 0, bytes);
    memory[*at] = bytes;
    return SUCCESS;
}
DRIVER cuMemFreeAsync(Address at, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    return memory.erase(at) ? SUCCESS : wrong("cuMemFreeAsync", "no allocation");
}
DRIVER cuMemHostAlloc(void** at, size_t bytes, unsigned flags) {
    IN_CONTEXT;
    NO_CAPTURE;
    if (flags) return wrong("cuMemHostAlloc", "memory that is slow to read");
    *at = calloc(1, bytes);
    return SUCCESS;
}
DRIVER cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (!holds(to, bytes)) return wrong("cuMemcpyHtoDAsync", "out of bounds");
    memcpy((void*)to, from, bytes);
    return SUCCESS;
}
DRIVER cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (!holds(from, bytes)) return wrong("cuMemcpyDtoHAsync", "out of bounds");
    memcpy(to, (const void*)from, bytes);
    return SUCCESS;
}
DRIVER cuMemsetD8Async(Address at, unsigned char byte, size_t bytes, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (!holds(at, bytes)) return wrong("cuMemsetD8Async", "out of bounds");
    memset((void*)at, byte, bytes);
    return SUCCESS;
}
DRIVER cuModuleLoadData(void** module, const void* image) {
    IN_CONTEXT;
    NO_CAPTURE;
    if (memcmp(image, "\177ELF", 4)) return wrong("cuModuleLoadData", "no machine code", INVALID_IMAGE);
    *module = new Module;
    return SUCCESS;
}
DRIVER cuModuleUnload(void* module) {
    IN_CONTEXT;
    NO_CAPTURE;
    for (auto function : ((Module*)module)->functions) function->unloaded = true;
    return SUCCESS;
}
DRIVER cuModuleGetFunction(void** function, void* module, const char* name) {
    IN_CONTEXT;
    auto found = new Function{name};
    ((Module*)module)->functions.push_back(found);
    *function = found;
    return SUCCESS;
}
DRIVER cuFuncSetAttribute(void* function, int which, int value) {
    IN_CONTEXT;
    if (which != 8 || value > 227 << 10) return wrong("cuFuncSetAttribute", "not what a block may have of shared memory");
    ((Function*)function)->most_dynamic = value;
    return SUCCESS;
}
DRIVER cuFuncGetAttribute(int* value, int which, void*) {
    IN_CONTEXT;
    switch (which) {
    case 1: *value = 128; return SUCCESS; // bytes of shared memory
    case 3: *value = 16; return SUCCESS;  // bytes of a thread's own memory
    case 4: *value = 40; return SUCCESS;  // registers
    default: return wrong("cuFuncGetAttribute", "an attribute that is not expected");
    }
}
DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, size_t dynamic) {
    IN_CONTEXT;
    if (threads < 1 || threads > 1024 || dynamic > 227 << 10) return wrong("cuOccupancyMaxActiveBlocksPerMultiprocessor", "no block");
    *blocks = 2048 / threads;
    return SUCCESS;
}

static Result launch_of(const char* call, Node& node, void* function, const unsigned* grid, const unsigned* block, unsigned shared, void** params) {
    node = Node{(Function*)function, grid[0], block[0], shared, 0};
    const bool shape = grid[0] && block[0] && block[0] <= 1024 && grid[1] == 1 && grid[2] == 1 && block[1] == 1 && block[2] == 1;
    if (!shape || (int)shared > node.function->most_dynamic || node.function->unloaded) return wrong(call, "no launch");
    memcpy(&node.first, params[0], 8);
    return SUCCESS;
}
// Every kernel's first argument is an address.
static Result run(const Node& node) {
    now += 0.002;
    return holds(node.first, 1) ? SUCCESS : wrong(node.function->name.c_str(), "an argument is no address");
}

DRIVER cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
    ON_STREAM(stream);
    const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    Node node;
    if (extra) return wrong("cuLaunchKernel", "arguments in two forms");
    if (Result code = launch_of("cuLaunchKernel", node, function, grid, block, shared, params)) return code;
    if (!capture) return run(node);
    capture->nodes.push_back(new Node(node));
    return SUCCESS;
}
DRIVER cuStreamBeginCapture_v2(void* stream, int mode) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (mode != 1) return wrong("cuStreamBeginCapture", "other threads would be refused");
    capture = new Graph;
    return SUCCESS;
}
DRIVER cuStreamGetCaptureInfo_v3(void* stream, int* status, unsigned long long* id, void** graph, void* const** nodes, const void** edges, size_t* count) {
    ON_STREAM(stream);
    static void* last;
    if (!status || !capture || capture->nodes.empty()) return wrong("cuStreamGetCaptureInfo", "nothing is captured");
    last = capture->nodes.back();
    *status = 1;
    if (id) *id = 1;
    if (graph) *graph = capture;
    if (nodes) *nodes = &last;
    if (edges) *edges = nullptr;
    if (count) *count = 1;
    return SUCCESS;
}
DRIVER cuStreamEndCapture(void* stream, void** graph) {
    ON_STREAM(stream);
    if (!capture) return wrong("cuStreamEndCapture", "nothing is captured");
    graphs.insert(capture);
    *graph = capture;
    capture = nullptr;
    return SUCCESS;
}
DRIVER cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long flags) {
    IN_CONTEXT;
    NO_CAPTURE;
    if (flags || !graphs.count((Graph*)graph)) return wrong("cuGraphInstantiateWithFlags", "no graph");
    auto made = new Exec{(Graph*)graph, {}};
    for (auto node : ((Graph*)graph)->nodes) made->nodes.push_back(*node);
    *exec = made;
    return SUCCESS;
}
DRIVER cuGraphExecUpdate_v2(void* exec, void* graph, void* info) {
    IN_CONTEXT;
    auto& nodes = ((Graph*)graph)->nodes;
    if (!info || !graphs.count((Graph*)graph)) return wrong("cuGraphExecUpdate", "no graph");
    if (((Exec*)exec)->nodes.size() != nodes.size()) return UPDATE_FAILURE;
    for (size_t i = 0; i < nodes.size(); i++) ((Exec*)exec)->nodes[i] = *nodes[i];
    return SUCCESS;
}
DRIVER cuGraphExecKernelNodeSetParams_v2(void* exec, void* node, const KernelNodeParams* given) {
    IN_CONTEXT;
    auto known = (Exec*)exec;
    if (!graphs.count(known->of)) return wrong("cuGraphExecKernelNodeSetParams", "the graph is gone");
    if (given->extra || given->kernel || given->context) return wrong("cuGraphExecKernelNodeSetParams", "more than one function");
    for (size_t i = 0; i < known->nodes.size(); i++)
        if (known->of->nodes[i] == node)
            return launch_of("cuGraphExecKernelNodeSetParams", known->nodes[i], given->function, given->grid, given->block, given->shared, given->params);
    return wrong("cuGraphExecKernelNodeSetParams", "no node of the graph");
}
DRIVER cuGraphLaunch(void* exec, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    for (auto& node : ((Exec*)exec)->nodes)
        if (Result code = run(node)) return code;
    return SUCCESS;
}
DRIVER cuGraphDestroy(void* graph) { IN_CONTEXT; return graphs.erase((Graph*)graph) ? SUCCESS : wrong("cuGraphDestroy", "no graph"); }
DRIVER cuGraphExecDestroy(void* exec) {
    IN_CONTEXT;
    for (auto& node : ((Exec*)exec)->nodes)
        if (node.function->unloaded) return wrong("cuGraphExecDestroy", "its code was unloaded before");
    return SUCCESS;
}
DRIVER cuEventCreate(void** event, unsigned flags) {
    IN_CONTEXT;
    if (flags) return wrong("cuEventCreate", "an event without a time");
    events[*event = malloc(1)] = -1;
    return SUCCESS;
}
DRIVER cuEventRecord(void* event, void* stream) {
    ON_STREAM(stream);
    NO_CAPTURE;
    if (!events.count(event)) return wrong("cuEventRecord", "no event");
    events[event] = now += 0.001;
    return SUCCESS;
}
DRIVER cuEventSynchronize(void* event) { IN_CONTEXT; return events.count(event) ? SUCCESS : wrong("cuEventSynchronize", "no event"); }
DRIVER cuEventElapsedTime_v2(float* ms, void* from, void* to) {
    IN_CONTEXT;
    if (!events.count(from) || !events.count(to) || events[from] < 0 || events[to] < events[from]) return wrong("cuEventElapsedTime", "no time between");
    *ms = float(events[to] - events[from]);
    return SUCCESS;
}
DRIVER cuEventDestroy_v2(void* event) { IN_CONTEXT; return events.erase(event) ? SUCCESS : wrong("cuEventDestroy", "no event"); }
