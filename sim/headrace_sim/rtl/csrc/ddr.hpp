// DDR memory behind an AXI4 port: a cycle model of latency, bandwidth, rows, refresh and turnaround.
//
// Requests are queued; one scheduler moves beats between the queues and the memory, reads and writes sharing its
// bandwidth. All requests of a direction are served in order, so responses are in order for every ID. Write data may
// arrive before its address. A write is visible to reads served after it; its response follows `write_latency` later.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "axi.hpp"
#include "fifo.hpp"

namespace headrace {

// Mirrored field by field by `DdrConfig` in simulator.py.
struct DdrParameters {
    uint64_t base, bytes;                         // memory covers [base, base + bytes)
    uint64_t read_latency, write_latency;         // cycles from address to first data, from last data to response
    uint64_t read_outstanding, write_outstanding; // requests accepted and not yet answered
    uint64_t beats_num, beats_den;                // bandwidth of both directions together, at most one beat a cycle
    uint64_t row_bytes, banks, row_miss;          // a beat in a row that its bank has not open waits row_miss cycles
    uint64_t refresh_interval, refresh_cycles;    // every interval (0: never) nothing moves for that many cycles
    uint64_t turnaround;                          // cycles lost between a read and a write
    uint64_t stall_per_1024, seed;                // chance that a ready or a new valid is withheld for a cycle
    uint64_t error_base, error_bytes, error_response;  // accesses in this range are answered with that response
};

class Ddr {
public:
    explicit Ddr(const DdrParameters& p)
        : p_(p),
          memory_(static_cast<uint8_t*>(std::calloc(p.bytes, 1))),
          reads_(p.read_outstanding),
          writes_(p.write_outstanding),
          write_data_(kWriteBuffer),
          read_data_(kReadBuffer),
          responses_(p.write_outstanding),
          open_row_(p.banks, kNoRow) {
        if (!memory_) throw std::bad_alloc();
        reset();
    }
    ~Ddr() { std::free(memory_); }
    Ddr(const Ddr&) = delete;
    Ddr& operator=(const Ddr&) = delete;

    uint8_t* memory() { return memory_; }
    uint64_t read_beats() const { return read_beats_; }
    uint64_t write_beats() const { return write_beats_; }

    // Forgets every request; memory and counters stay.
    void reset() {
        reads_.clear();
        writes_.clear();
        write_data_.clear();
        read_data_.clear();
        responses_.clear();
        out_ = SlaveSignals{};
        std::fill(open_row_.begin(), open_row_.end(), kNoRow);
        reads_pending_ = writes_pending_ = read_beat_ = write_beat_ = batch_ = 0;
        write_response_ = kOkay;
        writing_ = false;
        blocked_until_ = credit_ = 0;
        random_ = p_.seed * 2 + 1;
    }

    // What the memory drives in this cycle; depends on earlier cycles only.
    const SlaveSignals& drive() {
        out_.arready = reads_pending_ < p_.read_outstanding && !stall();
        out_.awready = writes_pending_ < p_.write_outstanding && !stall();
        out_.wready = !write_data_.full() && !stall();
        if (!out_.rvalid && !read_data_.empty() && !stall()) {
            const ReadBeat& beat = read_data_.front();
            out_.rvalid = true;
            out_.rid = beat.id;
            out_.rresp = beat.response;
            out_.rlast = beat.last;
            std::memcpy(out_.rdata, beat.data, kBeatBytes);
        }
        if (!out_.bvalid && !responses_.empty() && responses_.front().due <= cycle_ && !stall()) {
            out_.bvalid = true;
            out_.bid = responses_.front().id;
            out_.bresp = responses_.front().response;
        }
        return out_;
    }

    // The transfers of this cycle, then one cycle of the memory's own work.
    void sample(const MasterSignals& in) {
        if (in.ar.valid && out_.arready) {
            accept(reads_, in.ar, cycle_ + p_.read_latency);
            ++reads_pending_;
        }
        if (in.aw.valid && out_.awready) {
            accept(writes_, in.aw, cycle_);
            ++writes_pending_;
        }
        if (in.wvalid && out_.wready) {
            WriteBeat& beat = write_data_.push();
            std::memcpy(beat.data, in.wdata, kBeatBytes);
            beat.strobe = in.wstrb;
        }
        if (out_.rvalid && in.rready) {
            out_.rvalid = false;
            reads_pending_ -= out_.rlast;
            read_data_.pop();
            ++read_beats_;
        }
        if (out_.bvalid && in.bready) {
            out_.bvalid = false;
            responses_.pop();
            --writes_pending_;
        }
        schedule();
        ++cycle_;
    }

private:
    static constexpr size_t kWriteBuffer = 64, kReadBuffer = 32, kWriteHigh = 32;
    static constexpr unsigned kBatch = 64;
    static constexpr uint64_t kNoRow = ~0ull;

    struct Request {
        AddressChannel address;
        uint64_t due;
    };
    struct ReadBeat {
        uint8_t data[kBeatBytes];
        uint8_t id, response;
        bool last;
    };
    struct WriteBeat {
        uint8_t data[kBeatBytes];
        uint64_t strobe;
    };
    struct WriteResponse {
        uint64_t due;
        uint8_t id, response;
    };

    static void accept(Fifo<Request>& queue, const AddressChannel& address, uint64_t due) {
        Request& r = queue.push();
        r.address = address;
        r.due = due;
    }

    bool stall() {
        if (!p_.stall_per_1024) return false;
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return (random_ >> 20 & 1023) < p_.stall_per_1024;
    }

    bool can_read() const { return !reads_.empty() && reads_.front().due <= cycle_ && !read_data_.full(); }
    bool can_write() const { return !writes_.empty() && !write_data_.empty(); }

    // Moves at most one beat.
    void schedule() {
        credit_ = std::min(credit_ + p_.beats_num, p_.beats_den);
        if (p_.refresh_interval && cycle_ % p_.refresh_interval == p_.refresh_interval - 1) {
            blocked_until_ = std::max(blocked_until_, cycle_ + p_.refresh_cycles);
            std::fill(open_row_.begin(), open_row_.end(), kNoRow);
        }
        if (credit_ < p_.beats_den || cycle_ < blocked_until_) return;
        if (other_direction()) {
            writing_ = !writing_;
            batch_ = 0;
            blocked_until_ = cycle_ + p_.turnaround;
            if (p_.turnaround) return;
        }
        if (writing_ ? !can_write() : !can_read()) return;
        const AddressChannel& address = (writing_ ? writes_ : reads_).front().address;
        const uint64_t at = address.beat_address(writing_ ? write_beat_ : read_beat_) & ~uint64_t(kBeatBytes - 1);
        if (!row_open(at)) return;
        if (writing_) write(address, at);
        else read(address, at);
        ++batch_;
        credit_ -= p_.beats_den;
    }

    // A direction goes on while it can; after kBatch beats, or when writes fill half their buffer, the other has its turn.
    bool other_direction() const {
        if (writing_) return can_read() && (!can_write() || batch_ >= kBatch);
        return can_write() && (!can_read() || batch_ >= kBatch || write_data_.size() >= kWriteHigh);
    }

    bool row_open(uint64_t at) {
        if (!p_.row_miss) return true;
        const uint64_t row = at / p_.row_bytes;
        uint64_t& open = open_row_[row % p_.banks];
        if (open == row) return true;
        open = row;
        blocked_until_ = cycle_ + p_.row_miss;
        return false;
    }

    uint8_t response(uint64_t at) const {
        if (at < p_.base || at - p_.base + kBeatBytes > p_.bytes) return kDecodeError;
        if (at + kBeatBytes > p_.error_base && at < p_.error_base + p_.error_bytes) return p_.error_response;
        return kOkay;
    }

    void read(const AddressChannel& address, uint64_t at) {
        ReadBeat& beat = read_data_.push();
        beat.id = address.id;
        beat.response = response(at);
        beat.last = ++read_beat_ == address.beats();
        if (beat.response == kOkay) std::memcpy(beat.data, memory_ + (at - p_.base), kBeatBytes);
        else std::memset(beat.data, 0xEE, kBeatBytes);
        if (beat.last) {
            reads_.pop();
            read_beat_ = 0;
        }
    }

    void write(const AddressChannel& address, uint64_t at) {
        const WriteBeat& beat = write_data_.front();
        const uint8_t status = response(at);
        if (status == kOkay) {
            uint8_t* to = memory_ + (at - p_.base);
            for (unsigned i = 0; i < kBeatBytes; ++i)
                if (beat.strobe >> i & 1) to[i] = beat.data[i];
        }
        write_response_ = std::max(write_response_, status);
        write_data_.pop();
        ++write_beats_;
        if (++write_beat_ == address.beats()) {
            WriteResponse& r = responses_.push();
            r.due = cycle_ + p_.write_latency;
            r.id = address.id;
            r.response = write_response_;
            writes_.pop();
            write_beat_ = 0;
            write_response_ = kOkay;
        }
    }

    const DdrParameters p_;
    uint8_t* memory_;
    Fifo<Request> reads_, writes_;
    Fifo<WriteBeat> write_data_;
    Fifo<ReadBeat> read_data_;
    Fifo<WriteResponse> responses_;
    std::vector<uint64_t> open_row_;
    SlaveSignals out_;
    uint64_t cycle_ = 0, blocked_until_ = 0, credit_ = 0, random_ = 1;
    uint64_t read_beats_ = 0, write_beats_ = 0;
    size_t reads_pending_ = 0, writes_pending_ = 0;  // requests accepted and not yet answered
    unsigned read_beat_ = 0, write_beat_ = 0, batch_ = 0;
    uint8_t write_response_ = kOkay;
    bool writing_ = false;
};

}  // namespace headrace
