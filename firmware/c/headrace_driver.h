/* Driver of a Headrace machine for bare metal or Linux user space (registers and ring mapped by the caller).
 *
 * No function blocks without a limit, none allocates. Not thread safe. Results are 0 or a negative headrace_status.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef HEADRACE_DRIVER_H
#define HEADRACE_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "headrace.h"

enum headrace_status {
    HEADRACE_OK = 0,
    HEADRACE_NO_DEVICE = -1, /* ID, version or command size differ from what this driver was generated for */
    HEADRACE_BAD_ARGUMENT = -2,
    HEADRACE_RING_FULL = -3, /* nothing was copied; try again when the machine has fetched more */
    HEADRACE_TIMEOUT = -4,
    HEADRACE_HALTED = -5, /* headrace_get_error says why; headrace_reset makes the machine usable again */
};

/* Windows: what the machine may do in a range of addresses. */
enum headrace_access {
    HEADRACE_ACCESS_NONE = 0,
    HEADRACE_ACCESS_READ = 1,
    HEADRACE_ACCESS_WRITE = 2,
    HEADRACE_ACCESS_READ_WRITE = 3,
};

struct headrace {
    volatile uint32_t *registers;
    volatile uint32_t *ring; /* command ring as the processor sees it */
    unsigned ring_log2;      /* log2 of its commands */
    uint16_t tail;           /* commands written since the last reset */
    void (*sync)(void);      /* makes writes to DDR visible to the machine before the doorbell; may be NULL */
};

struct headrace_error {
    enum headrace_cause cause;
    enum headrace_engine engine;
    uint16_t index;   /* of the command, counted from the last reset */
    uint64_t address; /* its meaning depends on the cause */
};

/* Take over a machine: check its identity, reset it and set the ring.
 * ring_address: DDR address of the ring as the machine sees it, aligned to 128 bytes. ring_log2: 0..15. */
int headrace_open(struct headrace *device, volatile uint32_t *registers, volatile uint32_t *ring, uint64_t ring_address,
                  unsigned ring_log2, void (*sync)(void));

/* Forget all commands and tokens; from any state. Windows and scalar registers stay. `polls`: times to look at STATUS. */
int headrace_reset(struct headrace *device, uint32_t polls);

/* Allow accesses to [base, base + bytes), both multiples of 4 KiB, through window `number`. The ring needs one too (READ). */
int headrace_set_window(struct headrace *device, unsigned number, uint64_t base, uint64_t bytes,
                        enum headrace_access access);

int headrace_set_scalar(struct headrace *device, unsigned number, uint32_t value);

/* Copy commands (little endian words) into the ring. They run after the next headrace_start. */
int headrace_push(struct headrace *device, const uint32_t *commands, size_t count);

/* Ring the doorbell: run everything pushed so far. */
void headrace_start(struct headrace *device);

/* Wait until an END command has completed (its value in *end_value unless NULL) or the machine has halted.
 * `polls`: times to look; HEADRACE_TIMEOUT afterwards. Clears the interrupt it saw. */
int headrace_wait(struct headrace *device, uint32_t polls, uint32_t *end_value);

/* Stop with cause ABORT; then wait as above. Does nothing to an idle machine. */
void headrace_abort(struct headrace *device);

struct headrace_error headrace_get_error(const struct headrace *device);
const char *headrace_cause_name(enum headrace_cause cause);
const char *headrace_engine_name(enum headrace_engine engine);

/* Read all counters at one moment. values: HEADRACE_COUNTERS of them, in the order of enum headrace_counter. */
void headrace_read_counters(struct headrace *device, uint64_t *values);
void headrace_clear_counters(struct headrace *device);

#endif
