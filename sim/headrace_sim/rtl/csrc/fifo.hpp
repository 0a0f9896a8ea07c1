// A bounded queue without allocation after construction.
#pragma once
#include <cstddef>
#include <vector>

namespace headrace {

template <typename T>
class Fifo {
public:
    explicit Fifo(size_t capacity) : items_(capacity) {}
    bool empty() const { return count_ == 0; }
    bool full() const { return count_ == items_.size(); }
    size_t size() const { return count_; }
    void clear() { head_ = count_ = 0; }
    T& front() { return items_[head_]; }
    const T& front() const { return items_[head_]; }

    // The new last element, to be filled in place; the queue must not be full.
    T& push() {
        size_t tail = head_ + count_++;
        if (tail >= items_.size()) tail -= items_.size();
        return items_[tail];
    }
    void pop() {
        if (++head_ == items_.size()) head_ = 0;
        --count_;
    }

private:
    std::vector<T> items_;
    size_t head_ = 0, count_ = 0;
};

}  // namespace headrace
