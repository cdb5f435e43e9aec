// Runs kernels on the CPU: a process that reads launches from its input and answers on its output.
//
// Blocks run one after the other; the threads of a block are fibers, which run until they wait for others. In which order is
// the launch's choice: what depends on it is a race. Memory that a kernel gets ends or begins at an inaccessible page. What is
// wrong with a kernel is reported, and ends the process.
#include "cuda.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <vector>

// Static shared memory of functions that all kernels share; the linker knows where it is, if there is some.
extern "C" unsigned char __start_lz_shared_prelude[] __attribute__((weak)), __stop_lz_shared_prelude[] __attribute__((weak));

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

enum { FAIR, REVERSED, EVEN_AHEAD, ODD_AHEAD };
enum { AT_END, AT_START };

const size_t PAGE = 4096, STACK = 256 << 10, ALIGNMENT = 16, LANES = 32, THREADS = 1024;
/// A launch that computes for longer does not end. How long it waits for the machine does not count.
const unsigned SECONDS = 30;

// Talking to the parent.

void read_all(void* to, size_t bytes) {
    for (char* at = (char*)to; bytes > 0;) {
        ssize_t n = read(0, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) _exit(0);
        at += n, bytes -= n;
    }
}

void write_all(const void* from, size_t bytes) {
    for (const char* at = (const char*)from; bytes > 0;) {
        ssize_t n = write(1, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) _exit(0);
        at += n, bytes -= n;
    }
}

uint64_t read_word() {
    uint64_t word;
    read_all(&word, 8);
    return word;
}

// Memory between inaccessible pages.

struct Region {
    unsigned char *pages, *data;
    size_t page_bytes, bytes;
    bool writable;

    Region(size_t bytes, bool writable, int place) : bytes(bytes), writable(writable) {
        page_bytes = (bytes + PAGE - 1) / PAGE * PAGE;
        void* whole = mmap(nullptr, page_bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (whole == MAP_FAILED) lz_shim_fault(LZ_SHIM_TRAP, "no memory for %zu bytes", bytes);
        pages = (unsigned char*)whole + PAGE;
        if (page_bytes > 0) mprotect(pages, page_bytes, PROT_READ | PROT_WRITE);
        memset(pages, 0xff, page_bytes);
        data = place == AT_END ? pages + (page_bytes - bytes) / ALIGNMENT * ALIGNMENT : pages;
    }

    void seal() {
        if (!writable && page_bytes > 0) mprotect(pages, page_bytes, PROT_READ);
    }

    /// The first byte beside the data that was written; none where all are as they were.
    const unsigned char* harmed() const {
        for (const unsigned char* p = pages; p < pages + page_bytes; p++) {
            if (p == data) p += bytes;
            if (p < pages + page_bytes && *p != 0xff) return p;
        }
        return nullptr;
    }

    void free() { munmap(pages - PAGE, page_bytes + 2 * PAGE); }
};

// Fibers.

enum State { READY, AT_BARRIER, ASKING, DONE };

struct Fiber {
    void* stack_pointer;
    State state;
    int line;
    lz_shim_request* request;
};

struct Launch {
    const lz_shim_kernel* kernel;
    void** arguments;
    std::vector<Region> regions;
    Region* dynamic;
    int schedule;
};

Launch launch;
Fiber fibers[THREADS];
unsigned char* stacks;
Fiber* running;
void* scheduler;

#if defined(__x86_64__)
// Saves the callee's registers and the stack pointer, and goes on where another fiber saved its own.
extern "C" void lz_shim_switch(void** from, void* to);
asm(R"(
.text
.globl lz_shim_switch
lz_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void* fresh(void* end, void (*entry)()) {
    void** stack = (void**)end;
    *--stack = nullptr;
    *--stack = (void*)entry;
    // The registers that the first switch restores.
    for (int i = 0; i < 6; i++) *--stack = nullptr;
    return stack;
}
#else
ucontext_t contexts[THREADS + 1];

void lz_shim_switch(void** from, void* to) {
    ucontext_t* own = running ? &contexts[running - fibers] : &contexts[THREADS];
    *from = own;
    swapcontext(own, (ucontext_t*)to);
}

void* fresh(void* end, void (*entry)()) {
    ucontext_t* own = &contexts[((unsigned char*)end - stacks) / STACK - 1];
    getcontext(own);
    own->uc_stack.ss_sp = (unsigned char*)end - STACK + PAGE;
    own->uc_stack.ss_size = STACK - PAGE;
    own->uc_link = nullptr;
    makecontext(own, entry, 0);
    return own;
}
#endif

/// Back to the scheduler, until it runs this fiber again.
void suspend(State state) {
    Fiber* own = running;
    own->state = state;
#if defined(__x86_64__)
    lz_shim_switch(&own->stack_pointer, scheduler);
#else
    void* to = scheduler;
    lz_shim_switch(&own->stack_pointer, to);
#endif
}

void entry() {
    launch.kernel->call(launch.arguments);
    suspend(DONE);
}

void run(size_t thread) {
    running = &fibers[thread];
    threadIdx = {unsigned(thread), 0, 0};
#if defined(__x86_64__)
    lz_shim_switch(&scheduler, running->stack_pointer);
#else
    scheduler = &contexts[THREADS];
    swapcontext(&contexts[THREADS], (ucontext_t*)running->stack_pointer);
#endif
    running = nullptr;
}

void make_stacks() {
    void* whole = mmap(nullptr, STACK * THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) lz_shim_fault(LZ_SHIM_TRAP, "no memory for stacks");
    stacks = (unsigned char*)whole;
    for (size_t i = 0; i < THREADS; i++) mprotect(stacks + i * STACK, PAGE, PROT_NONE);
}

// Warps.

const char* state_of(const Fiber& fiber, char (&text)[128]) {
    switch (fiber.state) {
        case DONE: return "has exited";
        case AT_BARRIER: snprintf(text, sizeof text, "waits at __syncthreads in line %d", fiber.line); return text;
        case ASKING:
            snprintf(text, sizeof text, "waits at %s in line %d with mask %08x", fiber.request->name, fiber.request->line,
                     fiber.request->mask);
            return text;
        case READY: break;
    }
    return "runs";
}

struct Warp {
    size_t first, lanes;

    bool any(State state) const {
        for (size_t i = 0; i < lanes; i++) {
            if (fibers[first + i].state == state) return true;
        }
        return false;
    }

    /// Runs every lane that can until it waits, and completes what all lanes of a mask have asked for.
    void step(bool backwards) const {
        for (size_t i = 0; i < lanes; i++) {
            size_t thread = first + (backwards ? lanes - 1 - i : i);
            if (fibers[thread].state == READY) run(thread);
        }
        bool completed = false;
        for (size_t i = 0; i < lanes; i++) completed |= complete(i);
        // Nobody but the lanes that wait could help those that are missed.
        if (completed || any(READY)) return;
        for (size_t i = 0; i < lanes; i++) {
            if (fibers[first + i].state == ASKING) report(i);
        }
    }

  private:
    /// Whether a lane asks for the same as another.
    bool agree(size_t lane, const lz_shim_request* r) const {
        if (lane >= lanes || fibers[first + lane].state != ASKING) return false;
        const lz_shim_request* o = fibers[first + lane].request;
        return o->complete == r->complete && o->name == r->name && o->line == r->line && o->mask == r->mask;
    }

    bool complete(size_t lane) const {
        if (fibers[first + lane].state != ASKING) return false;
        lz_shim_request* r = fibers[first + lane].request;
        lz_shim_request* all[LANES] = {};
        for (size_t i = 0; i < LANES; i++) {
            if (!(r->mask >> i & 1)) continue;
            if (!agree(i, r)) return false;
            all[i] = fibers[first + i].request;
        }
        unsigned mask = r->mask;
        threadIdx = {unsigned(first + lane), 0, 0};
        r->complete(all, mask);
        for (size_t i = 0; i < LANES; i++) {
            if (mask >> i & 1) fibers[first + i].state = READY;
        }
        return true;
    }

    [[noreturn]] void report(size_t lane) const {
        const lz_shim_request* r = fibers[first + lane].request;
        size_t missed = 0;
        while (!(r->mask >> missed & 1) || agree(missed, r)) missed++;
        char text[128];
        const char* state = missed < lanes ? state_of(fibers[first + missed], text) : "is not in the block";
        threadIdx = {unsigned(first + lane), 0, 0};
        lz_shim_fault(LZ_SHIM_WARP, "%s in line %d with mask %08x waits for lane %zu of its warp, which %s", r->name, r->line,
                      r->mask, missed, state);
    }
};

// Blocks.

/// The warp that runs next: in turn, or those ahead first. The number of warps where none can.
size_t next_warp(const std::vector<Warp>& warps, size_t last) {
    size_t n = warps.size();
    bool ahead = launch.schedule >= EVEN_AHEAD;
    for (size_t i = 0; i < n; i++) {
        size_t w;
        if (ahead) {
            size_t favoured = launch.schedule == ODD_AHEAD, many = (n + 1 - favoured) / 2;
            w = i < many ? 2 * i + favoured : 2 * (i - many) + 1 - favoured;
        } else {
            w = launch.schedule == FAIR ? (last + 1 + i) % n : (2 * n + last - 1 - i) % n;
        }
        if (warps[w].any(READY)) return w;
    }
    return n;
}

/// Lets all go on from a barrier. False where all have exited.
bool release(size_t threads) {
    size_t waits = 0;
    while (waits < threads && fibers[waits].state != AT_BARRIER) waits++;
    if (waits == threads) return false;
    for (size_t other = 0; other < threads; other++) {
        if (fibers[other].state == AT_BARRIER && fibers[other].line == fibers[waits].line) continue;
        char text[128];
        const char* state = state_of(fibers[other], text);
        threadIdx = {unsigned(waits), 0, 0};
        lz_shim_fault(LZ_SHIM_BARRIER, "__syncthreads in line %d, where thread %zu waits, waits for thread %zu of its block, which %s",
                      fibers[waits].line, waits, other, state);
    }
    for (size_t i = 0; i < threads; i++) fibers[i].state = READY;
    return true;
}

void run_block(size_t threads) {
    memset(launch.kernel->shared, 0xff, launch.kernel->shared_end - launch.kernel->shared);
    memset(__start_lz_shared_prelude, 0xff, __stop_lz_shared_prelude - __start_lz_shared_prelude);
    memset(launch.dynamic->data, 0xff, launch.dynamic->bytes);
    std::vector<Warp> warps;
    for (size_t first = 0; first < threads; first += LANES) {
        warps.push_back({first, threads - first < LANES ? threads - first : LANES});
    }
    for (size_t i = 0; i < threads; i++) {
        fibers[i] = {fresh(stacks + (i + 1) * STACK, entry), READY, 0, nullptr};
    }
    size_t last = launch.schedule == FAIR ? warps.size() - 1 : 0;
    do {
        for (size_t w; (w = next_warp(warps, last)) < warps.size(); last = w) {
            warps[w].step(launch.schedule == REVERSED);
        }
    } while (release(threads));
}

/// The block that runs as the `i`th of `n`.
size_t block_in_order(size_t i, size_t n) {
    size_t even = (n + 1) / 2, odd = n / 2;
    switch (launch.schedule) {
        case REVERSED: return n - 1 - i;
        case EVEN_AHEAD: return i < even ? 2 * i : 2 * (i - even) + 1;
        case ODD_AHEAD: return i < odd ? 2 * i + 1 : 2 * (i - odd);
        default: return i;
    }
}

// Faults of the machine.

void describe(const unsigned char* address, char* text, size_t size) {
    for (size_t i = 0; i <= launch.regions.size(); i++) {
        const Region& r = i < launch.regions.size() ? launch.regions[i] : *launch.dynamic;
        if (address < r.pages - PAGE || address >= r.pages + r.page_bytes + PAGE) continue;
        char name[32];
        snprintf(name, sizeof name, i < launch.regions.size() ? "buffer %zu" : "dynamic shared memory", i);
        snprintf(text, size, "byte %td of %s of %zu bytes", address - r.data, name, r.bytes);
        return;
    }
    if (address >= stacks && address < stacks + STACK * THREADS) {
        snprintf(text, size, "the end of a thread's stack of %zu bytes", STACK);
        return;
    }
    snprintf(text, size, "address %p, in no buffer", (const void*)address);
}

void on_signal(int signal, siginfo_t* info, void* context) {
    if (signal == SIGVTALRM) lz_shim_fault(LZ_SHIM_ENDLESS, "the launch has not ended after %u seconds of computing", SECONDS);
    if (signal == SIGFPE) lz_shim_fault(LZ_SHIM_TRAP, "an integer division whose result does not exist");
    if (signal == SIGILL) lz_shim_fault(LZ_SHIM_TRAP, "a point that no thread may reach was reached");
    char text[160];
    describe((unsigned char*)info->si_addr, text, sizeof text);
    const char* way = "reaches";
#if defined(__x86_64__) && defined(__linux__)
    if (info->si_code == SI_KERNEL) lz_shim_fault(LZ_SHIM_MEMORY, "an access that is not aligned, or to no address");
    way = ((ucontext_t*)context)->uc_mcontext.gregs[REG_ERR] & 2 ? "writes" : "reads";
#else
    (void)context;
#endif
    lz_shim_fault(LZ_SHIM_MEMORY, "%s %s", way, text);
}

void catch_signals() {
    static unsigned char stack[64 << 10];
    stack_t alternative = {};
    alternative.ss_sp = stack, alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM}) sigaction(signal, &action, nullptr);
}

void limit_time(unsigned seconds) {
    itimerval limit = {};
    limit.it_value.tv_sec = seconds;
    setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}

void check_surroundings() {
    running = nullptr;
    for (size_t i = 0; i <= launch.regions.size(); i++) {
        const Region& r = i < launch.regions.size() ? launch.regions[i] : *launch.dynamic;
        if (const unsigned char* p = r.harmed()) {
            char text[160];
            describe(p, text, sizeof text);
            lz_shim_fault(LZ_SHIM_MEMORY, "some thread writes %s", text);
        }
    }
}

/// Reads a launch, runs it, and answers with what its writable memory holds.
void serve() {
    uint64_t header[8];
    read_all(header, sizeof header);
    launch.kernel = &lz_shim_kernels[header[0]];
    launch.schedule = int(header[1]);
    int place = int(header[2]);
    uint64_t blocks = header[3], threads = header[4];
    gridDim = {unsigned(blocks), 1, 1};
    blockDim = {unsigned(threads), 1, 1};
    Region dynamic(header[5], true, place);
    launch.dynamic = &dynamic;
    launch.regions.clear();
    for (uint64_t i = 0; i < header[6]; i++) {
        uint64_t bytes = read_word(), writable = read_word();
        launch.regions.emplace_back(bytes, writable != 0, place);
    }
    std::vector<uint64_t> words;
    for (uint64_t i = 0; i < header[7]; i++) {
        // Memory and an offset in it, or no memory and a word.
        uint64_t region = read_word(), word = read_word();
        words.push_back(region < launch.regions.size() ? (uint64_t)launch.regions[region].data + word : word);
    }
    std::vector<void*> pointers;
    for (uint64_t& word : words) pointers.push_back(&word);
    launch.arguments = pointers.data();
    for (Region& r : launch.regions) {
        read_all(r.data, r.bytes);
        r.seal();
    }
    if (threads == 0 || threads > THREADS) lz_shim_fault(LZ_SHIM_TRAP, "a block of %zu threads", (size_t)threads);
    limit_time(SECONDS);
    for (uint64_t i = 0; i < blocks; i++) {
        blockIdx = {unsigned(block_in_order(i, blocks)), 0, 0};
        run_block(threads);
    }
    limit_time(0);
    check_surroundings();
    uint64_t good = 0;
    write_all(&good, 8);
    for (Region& r : launch.regions) {
        if (r.writable) write_all(r.data, r.bytes);
        r.free();
    }
    dynamic.free();
}

}  // namespace

void lz_shim_fault(lz_shim_kind kind, const char* format, ...) {
    char text[512], where[64] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (running) snprintf(where, sizeof where, ", block %u, thread %u", blockIdx.x, threadIdx.x);
    char message[640];
    int length = snprintf(message, sizeof message, "%s%s: %s", launch.kernel->name, where, text);
    uint64_t answer[3] = {1, uint64_t(kind), uint64_t(length)};
    write_all(answer, sizeof answer);
    write_all(message, length);
    _exit(1);
}

void lz_shim_barrier(int line) {
    running->line = line;
    suspend(AT_BARRIER);
}

void lz_shim_ask(lz_shim_request* request) {
    if (!(request->mask >> lz_shim_lane() & 1)) {
        lz_shim_fault(LZ_SHIM_WARP, "%s in line %d is called by lane %d, which its mask %08x does not name", request->name,
                      request->line, lz_shim_lane(), request->mask);
    }
    running->request = request;
    suspend(ASKING);
}

unsigned lz_shim_active() {
    unsigned mask = 0;
    size_t first = threadIdx.x / LANES * LANES;
    for (size_t i = 0; i < LANES && first + i < blockDim.x; i++) {
        mask |= unsigned(fibers[first + i].state != DONE) << i;
    }
    return mask;
}

void* lz_shim_dynamic() { return launch.dynamic->data; }

int main() {
    catch_signals();
    make_stacks();
    for (;;) serve();
}
