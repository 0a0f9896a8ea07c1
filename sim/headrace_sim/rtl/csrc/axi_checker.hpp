// Checks the AXI4 rules on a port in every cycle and records the first violation.
//
// Rules the memory model adds: INCR bursts only. Write data may run ahead of its address.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <utility>

#include "axi.hpp"

namespace headrace {

class AxiChecker {
public:
    explicit AxiChecker(std::string violation = "") : violation_(std::move(violation)) {}
    const std::string& violation() const { return violation_; }

    // In reset no valid may be driven; outstanding transactions are forgotten.
    void reset(const MasterSignals& m, uint64_t cycle) {
        if (m.ar.valid || m.aw.valid || m.wvalid) fail(cycle, "a valid signal is high during reset");
        *this = AxiChecker(violation_);
    }

    void sample(const MasterSignals& m, const SlaveSignals& s, uint64_t cycle) {
        stable(m, cycle);
        if (m.ar.valid) address("AR", m.ar, cycle);
        if (m.aw.valid) address("AW", m.aw, cycle);
        if (m.ar.valid && s.arready) reads_.push_back({m.ar.id, m.ar.beats()});
        if (m.aw.valid && s.awready) {
            bursts_.push_back(m.aw);
            unanswered_.push_back(m.aw.id);
        }
        if (m.wvalid && s.wready) data_.push_back({m.wstrb, m.wlast});
        write_data(cycle);
        read_data(m, s, cycle);
        write_response(m, s, cycle);
        previous_ = m;
        ar_held_ = m.ar.valid && !s.arready;
        aw_held_ = m.aw.valid && !s.awready;
        w_held_ = m.wvalid && !s.wready;
    }

private:
    struct ReadBurst {
        uint8_t id;
        unsigned left;
    };
    struct DataBeat {
        uint64_t strobe;
        bool last;
    };

    void fail(uint64_t cycle, const char* what, const char* channel = "") {
        if (!violation_.empty()) return;
        char text[256];
        std::snprintf(text, sizeof text, "cycle %llu: %s%s%s", static_cast<unsigned long long>(cycle), channel,
                      *channel ? ": " : "", what);
        violation_ = text;
    }

    void stable(const MasterSignals& m, uint64_t cycle) {
        if (ar_held_ && !(m.ar.valid && m.ar.same_payload(previous_.ar))) fail(cycle, "changed before ready", "AR");
        if (aw_held_ && !(m.aw.valid && m.aw.same_payload(previous_.aw))) fail(cycle, "changed before ready", "AW");
        if (w_held_ && !(m.wvalid && m.wstrb == previous_.wstrb && m.wlast == previous_.wlast &&
                         std::memcmp(m.wdata, previous_.wdata, kBeatBytes) == 0))
            fail(cycle, "changed before ready", "W");
    }

    void address(const char* channel, const AddressChannel& a, uint64_t cycle) {
        if (a.burst != kIncr) fail(cycle, "burst type is not INCR", channel);
        if ((1u << a.size) > kBeatBytes) fail(cycle, "beat size exceeds the data bus", channel);
        const uint64_t last = (((a.addr >> a.size) + a.beats()) << a.size) - 1;
        if (a.addr >> 12 != last >> 12) fail(cycle, "burst crosses a 4 KiB boundary", channel);
    }

    // Matches data beats with the bursts they belong to, in order.
    void write_data(uint64_t cycle) {
        while (!data_.empty() && !bursts_.empty()) {
            const AddressChannel& a = bursts_.front();
            const uint64_t at = a.beat_address(beat_);
            const uint64_t low = at & (kBeatBytes - 1), end = (low >> a.size << a.size) + (1ull << a.size);
            const uint64_t lanes = (end >= 64 ? ~0ull : (1ull << end) - 1) & ~((1ull << low) - 1);
            if (data_.front().strobe & ~lanes) fail(cycle, "strobe outside the lanes of the beat", "W");
            if (data_.front().last != (beat_ == a.len)) fail(cycle, "WLAST is not on the last beat of its burst", "W");
            if (beat_++ == a.len) {
                bursts_.pop_front();
                ++answerable_;
                beat_ = 0;
            }
            data_.pop_front();
        }
        if (data_.size() > kMaxBeatsAhead) fail(cycle, "more write data than a burst holds without an address", "W");
    }

    void read_data(const MasterSignals& m, const SlaveSignals& s, uint64_t cycle) {
        if (!s.rvalid || !m.rready) return;
        for (auto it = reads_.begin(); it != reads_.end(); ++it) {
            if (it->id != s.rid) continue;
            if (s.rlast != (it->left == 1)) fail(cycle, "RLAST is not on the last beat of its burst", "R");
            if (--it->left == 0) reads_.erase(it);
            return;
        }
        fail(cycle, "data without an outstanding request of its ID", "R");
    }

    void write_response(const MasterSignals& m, const SlaveSignals& s, uint64_t cycle) {
        if (!s.bvalid || !m.bready) return;
        if (answerable_ == 0) fail(cycle, "response before the last beat of the burst", "B");
        for (auto it = unanswered_.begin(); it != unanswered_.end(); ++it) {
            if (*it != s.bid) continue;
            unanswered_.erase(it);
            --answerable_;
            return;
        }
        fail(cycle, "response without an outstanding request of its ID", "B");
    }

    static constexpr size_t kMaxBeatsAhead = 256;

    std::string violation_;
    MasterSignals previous_;
    bool ar_held_ = false, aw_held_ = false, w_held_ = false;
    std::deque<ReadBurst> reads_;
    std::deque<AddressChannel> bursts_;  // accepted addresses whose data is not complete
    std::deque<uint8_t> unanswered_;     // IDs of accepted write bursts without a response
    std::deque<DataBeat> data_;          // data that ran ahead of its address
    unsigned beat_ = 0;                  // next beat of the first burst
    uint64_t answerable_ = 0;            // bursts whose data is complete and whose response is outstanding
};

}  // namespace headrace
