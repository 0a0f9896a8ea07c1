// Signals of an AXI4 port, sampled or driven once a cycle.
#pragma once
#include <cstdint>

#ifndef HEADRACE_AXI_BITS
#error "HEADRACE_AXI_BITS is the width of the AXI data bus"
#endif

namespace headrace {

constexpr unsigned kBeatBytes = HEADRACE_AXI_BITS / 8;

enum Response : uint8_t { kOkay = 0, kSlaveError = 2, kDecodeError = 3 };
enum Burst : uint8_t { kFixed = 0, kIncr = 1, kWrap = 2 };

struct AddressChannel {
    uint64_t addr = 0;
    uint8_t id = 0, len = 0, size = 0, burst = 0;
    bool valid = false;

    bool same_payload(const AddressChannel& o) const {
        return addr == o.addr && id == o.id && len == o.len && size == o.size && burst == o.burst;
    }
    unsigned beats() const { return len + 1u; }
    // Address of beat n of an INCR burst: the first one as given, the others aligned to the beat size.
    uint64_t beat_address(unsigned n) const { return n == 0 ? addr : ((addr >> size) + n) << size; }
};

// What the master drives.
struct MasterSignals {
    AddressChannel ar, aw;
    uint8_t wdata[kBeatBytes] = {};
    uint64_t wstrb = 0;
    bool wlast = false, wvalid = false, rready = false, bready = false;
};

// What the memory drives.
struct SlaveSignals {
    bool arready = false, awready = false, wready = false;
    bool rvalid = false, rlast = false, bvalid = false;
    uint8_t rid = 0, rresp = 0, bid = 0, bresp = 0;
    uint8_t rdata[kBeatBytes] = {};
};

}  // namespace headrace
