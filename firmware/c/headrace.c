/* SPDX-License-Identifier: Apache-2.0 */
#include "headrace_driver.h"

#define RESET_POLLS 1000000u

static uint32_t get(const struct headrace *device, uint32_t offset)
{
    return device->registers[offset / 4u];
}

static void put(struct headrace *device, uint32_t offset, uint32_t value)
{
    device->registers[offset / 4u] = value;
}

static uint16_t commands_in_ring(const struct headrace *device)
{
    return (uint16_t)(device->tail - (uint16_t)get(device, HEADRACE_REG_RING_HEAD));
}

int headrace_open(struct headrace *device, volatile uint32_t *registers, volatile uint32_t *ring, uint64_t ring_address,
                  unsigned ring_log2, void (*sync)(void))
{
    uint32_t isa;

    if (ring_address % HEADRACE_COMMAND_BYTES || ring_address >> 40 || ring_log2 > HEADRACE_RING_SIZE_LOG2_MASK)
        return HEADRACE_BAD_ARGUMENT;
    device->registers = registers;
    device->ring = ring;
    device->ring_log2 = ring_log2;
    device->tail = 0;
    device->sync = sync;
    if (get(device, HEADRACE_REG_ID) != HEADRACE_ID_VALUE)
        return HEADRACE_NO_DEVICE;
    if (get(device, HEADRACE_REG_VERSION) >> HEADRACE_VERSION_MAJOR_SHIFT !=
        HEADRACE_VERSION_VALUE >> HEADRACE_VERSION_MAJOR_SHIFT)
        return HEADRACE_NO_DEVICE;
    isa = get(device, HEADRACE_REG_CAP_ISA);
    if ((isa & HEADRACE_CAP_ISA_COMMAND_BYTES_MASK) != HEADRACE_COMMAND_BYTES ||
        isa >> HEADRACE_CAP_ISA_VERSION_SHIFT != HEADRACE_COMMAND_SET_VERSION)
        return HEADRACE_NO_DEVICE;
    if (headrace_reset(device, RESET_POLLS))
        return HEADRACE_TIMEOUT;
    put(device, HEADRACE_REG_RING_BASE_LO, (uint32_t)ring_address);
    put(device, HEADRACE_REG_RING_BASE_HI, (uint32_t)(ring_address >> 32));
    put(device, HEADRACE_REG_RING_SIZE, ring_log2);
    return HEADRACE_OK;
}

int headrace_reset(struct headrace *device, uint32_t polls)
{
    put(device, HEADRACE_REG_CONTROL, HEADRACE_CONTROL_RESET_MASK);
    while (get(device, HEADRACE_REG_STATUS) != HEADRACE_STATE_IDLE)
        if (!polls--)
            return HEADRACE_TIMEOUT;
    put(device, HEADRACE_REG_IRQ_STATUS, HEADRACE_IRQ_STATUS_DONE_MASK | HEADRACE_IRQ_STATUS_ERROR_MASK);
    device->tail = 0;
    return HEADRACE_OK;
}

int headrace_set_window(struct headrace *device, unsigned number, uint64_t base, uint64_t bytes,
                        enum headrace_access access)
{
    uint32_t offset = number * HEADRACE_WINDOW_STRIDE;
    uint64_t limit = (base + bytes) / HEADRACE_PAGE_BYTES;

    if (number >= HEADRACE_WINDOWS || (base | bytes) % HEADRACE_PAGE_BYTES || base + bytes < base ||
        limit > HEADRACE_PAGE_MAX)
        return HEADRACE_BAD_ARGUMENT;
    put(device, HEADRACE_REG_WINDOW0_FLAGS + offset, HEADRACE_ACCESS_NONE);
    put(device, HEADRACE_REG_WINDOW0_BASE + offset, (uint32_t)(base / HEADRACE_PAGE_BYTES));
    put(device, HEADRACE_REG_WINDOW0_LIMIT + offset, (uint32_t)limit);
    put(device, HEADRACE_REG_WINDOW0_FLAGS + offset, (uint32_t)access);
    return HEADRACE_OK;
}

int headrace_set_scalar(struct headrace *device, unsigned number, uint32_t value)
{
    if (number >= HEADRACE_SCALARS)
        return HEADRACE_BAD_ARGUMENT;
    put(device, HEADRACE_REG_SCALAR0 + number * HEADRACE_SCALAR_STRIDE, value);
    return HEADRACE_OK;
}

int headrace_push(struct headrace *device, const uint32_t *commands, size_t count)
{
    uint32_t size = 1u << device->ring_log2;

    if (count > size - commands_in_ring(device))
        return HEADRACE_RING_FULL;
    for (size_t i = 0; i < count; i++) {
        volatile uint32_t *slot = device->ring + (device->tail & (size - 1u)) * HEADRACE_COMMAND_WORDS;

        for (unsigned word = 0; word < HEADRACE_COMMAND_WORDS; word++)
            slot[word] = commands[i * HEADRACE_COMMAND_WORDS + word];
        device->tail++;
    }
    return HEADRACE_OK;
}

void headrace_start(struct headrace *device)
{
    if (device->sync)
        device->sync();
    put(device, HEADRACE_REG_RING_TAIL, device->tail);
}

int headrace_wait(struct headrace *device, uint32_t polls, uint32_t *end_value)
{
    uint32_t status;

    while (!(status = get(device, HEADRACE_REG_IRQ_STATUS)))
        if (!polls--)
            return HEADRACE_TIMEOUT;
    put(device, HEADRACE_REG_IRQ_STATUS, status);
    if (status & HEADRACE_IRQ_STATUS_ERROR_MASK)
        return HEADRACE_HALTED;
    if (end_value)
        *end_value = get(device, HEADRACE_REG_END_VALUE);
    return HEADRACE_OK;
}

void headrace_abort(struct headrace *device)
{
    put(device, HEADRACE_REG_CONTROL, HEADRACE_CONTROL_ABORT_MASK);
}

struct headrace_error headrace_get_error(const struct headrace *device)
{
    struct headrace_error error = {
        .cause = (enum headrace_cause)get(device, HEADRACE_REG_ERR_CAUSE),
        .engine = (enum headrace_engine)get(device, HEADRACE_REG_ERR_ENGINE),
        .index = (uint16_t)get(device, HEADRACE_REG_ERR_INDEX),
        .address = get(device, HEADRACE_REG_ERR_ADDRESS_LO) | (uint64_t)get(device, HEADRACE_REG_ERR_ADDRESS_HI) << 32,
    };

    return error;
}

const char *headrace_cause_name(enum headrace_cause cause)
{
    static const char *const names[] = HEADRACE_CAUSE_NAMES;

    return (size_t)cause < sizeof names / sizeof *names ? names[cause] : "unknown";
}

const char *headrace_engine_name(enum headrace_engine engine)
{
    static const char *const names[] = HEADRACE_ENGINE_NAMES;

    return (size_t)engine < sizeof names / sizeof *names ? names[engine] : "unknown";
}

void headrace_read_counters(struct headrace *device, uint64_t *values)
{
    put(device, HEADRACE_REG_CONTROL, HEADRACE_CONTROL_SNAPSHOT_MASK);
    for (unsigned i = 0; i < HEADRACE_COUNTERS; i++)
        values[i] = get(device, HEADRACE_REG_COUNTER_LO(i)) | (uint64_t)get(device, HEADRACE_REG_COUNTER_HI(i)) << 32;
}

void headrace_clear_counters(struct headrace *device)
{
    put(device, HEADRACE_REG_CONTROL, HEADRACE_CONTROL_CLEAR_MASK);
}
