// One machine, its memory and its host, stepped cycle by cycle behind a C interface.
//
// Built with the Verilated model `Vtop`. HEADRACE_ENGINES is the number of engines on the trace port (0: no trace port);
// HEADRACE_WAVES is 1 for FST, 2 for VCD. A step drives the inputs, settles with the clock low, samples all outputs,
// and raises the clock. Every function returns at once after an error; `headrace_error` tells which.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "axi_checker.hpp"
#include "ddr.hpp"
#include "verilated.h"

#if HEADRACE_WAVES == 1
#include "verilated_fst_c.h"
using WaveFile = VerilatedFstC;
#elif HEADRACE_WAVES == 2
#include "verilated_vcd_c.h"
using WaveFile = VerilatedVcdC;
#endif

namespace headrace {

// Mirrored by `EVENT_DTYPE` in trace.py.
struct TraceEvent {
    uint64_t cycle;
    uint16_t index;
    uint8_t engine, is_end;
    uint32_t reserved;
};

enum RunResult : int { kInterrupt = 0, kCyclesUp = 1, kError = 2 };

thread_local std::string* assertion = nullptr;  // where a failed assertion of the design is reported

class Machine {
public:
    explicit Machine(const DdrParameters& parameters) : ddr_(parameters), top_(new Vtop(&context_)) {
#if HEADRACE_WAVES
        context_.traceEverOn(true);
#endif
        reset(4);
    }
    ~Machine() {
        enter();
        stop_waves();
        top_->final();
    }

    void reset(uint64_t cycles) {
        top_->rst = 1;
        for (uint64_t i = 0; i < cycles; ++i) step(true, i > 0);
        top_->rst = 0;
    }

    int run(uint64_t cycles, bool until_interrupt) {
        for (uint64_t i = 0; i < cycles; ++i) {
            step(false, true);
            if (failed()) return kError;
            if (until_interrupt && interrupt_) return kInterrupt;
        }
        return kCyclesUp;
    }

    // AXI4-Lite write; the response, or -1 when there is none within the time limit.
    int write_register(uint32_t address, uint32_t value, uint32_t strobe) {
        top_->s_axil_awaddr = address;
        top_->s_axil_awvalid = 1;
        top_->s_axil_wdata = value;
        top_->s_axil_wstrb = strobe;
        top_->s_axil_wvalid = 1;
        top_->s_axil_bready = 1;
        int response = -1;
        for (int i = 0; i < kRegisterTimeout && response < 0 && !failed(); ++i) {
            settle();
            const bool aw = top_->s_axil_awvalid && top_->s_axil_awready;
            const bool w = top_->s_axil_wvalid && top_->s_axil_wready;
            if (top_->s_axil_bvalid) response = top_->s_axil_bresp;
            finish(false, true);
            if (aw) top_->s_axil_awvalid = 0;
            if (w) top_->s_axil_wvalid = 0;
        }
        top_->s_axil_awvalid = top_->s_axil_wvalid = top_->s_axil_bready = 0;
        return response;
    }

    int read_register(uint32_t address, uint32_t* value) {
        top_->s_axil_araddr = address;
        top_->s_axil_arvalid = 1;
        top_->s_axil_rready = 1;
        int response = -1;
        for (int i = 0; i < kRegisterTimeout && response < 0 && !failed(); ++i) {
            settle();
            const bool ar = top_->s_axil_arvalid && top_->s_axil_arready;
            if (top_->s_axil_rvalid) {
                response = top_->s_axil_rresp;
                *value = top_->s_axil_rdata;
            }
            finish(false, true);
            if (ar) top_->s_axil_arvalid = 0;
        }
        top_->s_axil_arvalid = top_->s_axil_rready = 0;
        return response;
    }

    bool start_waves([[maybe_unused]] const char* path) {
#if HEADRACE_WAVES
        stop_waves();
        waves_ = std::make_unique<WaveFile>();
        top_->trace(waves_.get(), 99);
        waves_->open(path);
        return waves_->isOpen();
#else
        return false;
#endif
    }
    void stop_waves() {
#if HEADRACE_WAVES
        if (waves_) waves_->close();
        waves_.reset();
#endif
    }

    const std::string& error() const { return error_.empty() ? checker_.violation() : error_; }
    uint64_t cycle() const { return cycle_; }
    Ddr& ddr() { return ddr_; }
    std::vector<TraceEvent>& trace() { return trace_; }

private:
    static constexpr int kRegisterTimeout = 10000;

    bool failed() const { return !error_.empty() || !checker_.violation().empty(); }

    void step(bool in_reset, bool check) {
        settle();
        finish(in_reset, check);
    }

    // Verilator's runtime finds the model's context through the thread; another machine may have been the last to run.
    void enter() {
        Verilated::threadContextp(&context_);
        assertion = &error_;
    }

    void settle() {
        enter();
        drive(ddr_.drive());
        top_->clk = 0;
        top_->eval();
        dump(0);
    }

    void finish(bool in_reset, bool check) {
        sample();
        if (in_reset) {
            if (check) checker_.reset(bus_, cycle_);
            ddr_.reset();
        } else {
            checker_.sample(bus_, *slave_, cycle_);
            ddr_.sample(bus_);
            sample_trace();
        }
        interrupt_ = top_->irq;
        top_->clk = 1;
        top_->eval();
        dump(1);
        ++cycle_;
    }

    void drive(const SlaveSignals& s) {
        slave_ = &s;
        top_->m_axi_arready = s.arready;
        top_->m_axi_awready = s.awready;
        top_->m_axi_wready = s.wready;
        top_->m_axi_rvalid = s.rvalid;
        top_->m_axi_bvalid = s.bvalid;
        if (s.rvalid) {
            top_->m_axi_rid = s.rid;
            top_->m_axi_rresp = s.rresp;
            top_->m_axi_rlast = s.rlast;
            std::memcpy(&top_->m_axi_rdata, s.rdata, kBeatBytes);
        }
        if (s.bvalid) {
            top_->m_axi_bid = s.bid;
            top_->m_axi_bresp = s.bresp;
        }
    }

    void sample() {
        bus_.ar.valid = top_->m_axi_arvalid;
        if (bus_.ar.valid) {
            bus_.ar.addr = top_->m_axi_araddr;
            bus_.ar.id = top_->m_axi_arid;
            bus_.ar.len = top_->m_axi_arlen;
            bus_.ar.size = top_->m_axi_arsize;
            bus_.ar.burst = top_->m_axi_arburst;
        }
        bus_.aw.valid = top_->m_axi_awvalid;
        if (bus_.aw.valid) {
            bus_.aw.addr = top_->m_axi_awaddr;
            bus_.aw.id = top_->m_axi_awid;
            bus_.aw.len = top_->m_axi_awlen;
            bus_.aw.size = top_->m_axi_awsize;
            bus_.aw.burst = top_->m_axi_awburst;
        }
        bus_.wvalid = top_->m_axi_wvalid;
        if (bus_.wvalid) {
            std::memcpy(bus_.wdata, &top_->m_axi_wdata, kBeatBytes);
            bus_.wstrb = top_->m_axi_wstrb;
            bus_.wlast = top_->m_axi_wlast;
        }
        bus_.rready = top_->m_axi_rready;
        bus_.bready = top_->m_axi_bready;
    }

    void sample_trace() {
#if HEADRACE_ENGINES
        const unsigned begin = top_->trace_begin, end = top_->trace_end;
        if (!(begin | end)) return;
        record(end, &top_->trace_end_index, 1);
        record(begin, &top_->trace_begin_index, 0);
#endif
    }

    void record(unsigned engines, const void* indices, uint8_t is_end) {
        for (uint8_t e = 0; engines >> e; ++e) {
            if (!(engines >> e & 1)) continue;
            TraceEvent event{cycle_, 0, e, is_end, 0};
            std::memcpy(&event.index, static_cast<const char*>(indices) + 2 * e, 2);
            trace_.push_back(event);
        }
    }

    void dump([[maybe_unused]] unsigned half) {
#if HEADRACE_WAVES
        if (waves_) waves_->dump(2 * cycle_ + half);
#endif
    }

    VerilatedContext context_;
    Ddr ddr_;
    std::unique_ptr<Vtop> top_;
#if HEADRACE_WAVES
    std::unique_ptr<WaveFile> waves_;
#endif
    AxiChecker checker_;
    MasterSignals bus_;
    const SlaveSignals* slave_ = nullptr;
    std::vector<TraceEvent> trace_;
    std::string error_;
    uint64_t cycle_ = 0;
    bool interrupt_ = false;
};

void report(const char* kind, const char* file, int line, const char* hierarchy) {
    if (!assertion || !assertion->empty()) return;
    char text[512];
    std::snprintf(text, sizeof text, "%s in %s (%s:%d)", kind, hierarchy, file, line);
    *assertion = text;
}

}  // namespace headrace

// Verilator's own versions end the process.
void vl_stop(const char* file, int line, const char* hierarchy) { headrace::report("assertion failed", file, line, hierarchy); }
void vl_finish(const char* file, int line, const char* hierarchy) { headrace::report("$finish", file, line, hierarchy); }
void vl_fatal(const char* file, int line, const char* hierarchy, const char* message) {
    headrace::report(message, file, line, hierarchy);
}

using headrace::Machine;

extern "C" {
Machine* headrace_create(const headrace::DdrParameters* p) {
    try {
        return new Machine(*p);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void headrace_destroy(Machine* m) { delete m; }
void headrace_reset(Machine* m, uint64_t cycles) { m->reset(cycles); }
uint8_t* headrace_memory(Machine* m) { return m->ddr().memory(); }
int headrace_write_register(Machine* m, uint32_t address, uint32_t value, uint32_t strobe) {
    return m->write_register(address, value, strobe);
}
int headrace_read_register(Machine* m, uint32_t address, uint32_t* value) { return m->read_register(address, value); }
int headrace_run(Machine* m, uint64_t cycles, int until_interrupt) { return m->run(cycles, until_interrupt != 0); }
uint64_t headrace_cycle(Machine* m) { return m->cycle(); }
uint64_t headrace_read_beats(Machine* m) { return m->ddr().read_beats(); }
uint64_t headrace_write_beats(Machine* m) { return m->ddr().write_beats(); }
const char* headrace_error(Machine* m) { return m->error().c_str(); }
uint64_t headrace_trace_size(Machine* m) { return m->trace().size(); }
const headrace::TraceEvent* headrace_trace(Machine* m) { return m->trace().data(); }
void headrace_trace_clear(Machine* m) { m->trace().clear(); }
int headrace_start_waves(Machine* m, const char* path) { return m->start_waves(path); }
void headrace_stop_waves(Machine* m) { m->stop_waves(); }
}
