/* Uses the generated header and the driver on registers that are plain memory. Prints the commands it encodes. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "headrace_driver.h"

static uint32_t registers[1024];
static uint32_t ring[4 * HEADRACE_COMMAND_WORDS];
static int synced;

static void sync_memory(void)
{
    synced++;
}

static void print(const uint32_t *command)
{
    for (unsigned i = 0; i < HEADRACE_COMMAND_WORDS; i++)
        for (unsigned byte = 0; byte < 4; byte++)
            printf("%02x", (unsigned)(command[i] >> 8 * byte & 0xFFu));
    printf("\n");
}

int main(void)
{
    struct headrace device;
    struct headrace_error error;
    uint64_t counters[HEADRACE_COUNTERS];
    uint32_t commands[2 * HEADRACE_COMMAND_WORDS] = {0};
    uint32_t *mac = commands, *load = commands + HEADRACE_COMMAND_WORDS, value;

    HEADRACE_SET_HEADER(mac, OPCODE, HEADRACE_OP_MAC);
    HEADRACE_SET_HEADER(mac, WAIT, 1u << 3 | 1u << 31);
    HEADRACE_SET(mac, MAC, PAD_TOP, -3);
    HEADRACE_SET(mac, MAC, M_COUNT, 0xABCDEF);
    HEADRACE_SET_HEADER(load, OPCODE, HEADRACE_OP_LOAD);
    HEADRACE_SET_HEADER(load, PATCH1, HEADRACE_PATCH(HEADRACE_LOAD_S1_OFFSET / 32, 5, 7));
    HEADRACE_SET(load, LOAD, DDR, 0x1234567890);
    HEADRACE_SET(load, LOAD, S1, -1);
    HEADRACE_SET(load, LOAD, DEST, HEADRACE_DEST_CONTEXT);
    print(mac);
    print(load);

    assert(headrace_open(&device, registers, ring, 0x1200000080, 2, sync_memory) == HEADRACE_NO_DEVICE);
    registers[HEADRACE_REG_ID / 4] = HEADRACE_ID_VALUE;
    registers[HEADRACE_REG_VERSION / 4] = HEADRACE_VERSION_VALUE + 7;
    registers[HEADRACE_REG_CAP_ISA / 4] = HEADRACE_COMMAND_BYTES | HEADRACE_COMMAND_SET_VERSION << 16;
    assert(headrace_open(&device, registers, ring, 0x1200000001, 2, sync_memory) == HEADRACE_BAD_ARGUMENT);
    assert(headrace_open(&device, registers, ring, 0x1200000080, 2, sync_memory) == HEADRACE_OK);
    assert(registers[HEADRACE_REG_RING_BASE_LO / 4] == 0x80 && registers[HEADRACE_REG_RING_BASE_HI / 4] == 0x12);
    assert(headrace_set_window(&device, 1, 0x10000, 0x2000, HEADRACE_ACCESS_WRITE) == HEADRACE_OK);
    assert(registers[HEADRACE_REG_WINDOW1_BASE / 4] == 0x10 && registers[HEADRACE_REG_WINDOW1_LIMIT / 4] == 0x12);
    assert(registers[HEADRACE_REG_WINDOW1_FLAGS / 4] == HEADRACE_WINDOW1_FLAGS_WRITE_MASK);
    assert(headrace_set_window(&device, 1, 0x10001, 0x2000, HEADRACE_ACCESS_READ) == HEADRACE_BAD_ARGUMENT);
    assert(headrace_set_window(&device, HEADRACE_WINDOWS, 0, 0x1000, HEADRACE_ACCESS_READ) == HEADRACE_BAD_ARGUMENT);
    assert(headrace_set_scalar(&device, 15, 9) == HEADRACE_OK && registers[HEADRACE_REG_SCALAR15 / 4] == 9);

    assert(headrace_push(&device, commands, 2) == HEADRACE_OK && headrace_push(&device, commands, 2) == HEADRACE_OK);
    assert(headrace_push(&device, commands, 1) == HEADRACE_RING_FULL);
    registers[HEADRACE_REG_RING_HEAD / 4] = 1;
    assert(headrace_push(&device, load, 1) == HEADRACE_OK);
    assert(!memcmp(ring, load, HEADRACE_COMMAND_BYTES) && !memcmp(ring + 2 * HEADRACE_COMMAND_WORDS, mac, 128));
    headrace_start(&device);
    assert(synced == 1 && registers[HEADRACE_REG_RING_TAIL / 4] == 5);

    registers[HEADRACE_REG_IRQ_STATUS / 4] = 0;
    assert(headrace_wait(&device, 10, &value) == HEADRACE_TIMEOUT);
    registers[HEADRACE_REG_IRQ_STATUS / 4] = HEADRACE_IRQ_STATUS_DONE_MASK;
    registers[HEADRACE_REG_END_VALUE / 4] = 42;
    assert(headrace_wait(&device, 10, &value) == HEADRACE_OK && value == 42);
    registers[HEADRACE_REG_IRQ_STATUS / 4] = HEADRACE_IRQ_STATUS_ERROR_MASK;
    registers[HEADRACE_REG_ERR_CAUSE / 4] = HEADRACE_CAUSE_BUS;
    registers[HEADRACE_REG_ERR_ENGINE / 4] = HEADRACE_ENGINE_STORE;
    registers[HEADRACE_REG_ERR_ADDRESS_HI / 4] = 1;
    assert(headrace_wait(&device, 10, &value) == HEADRACE_HALTED);
    error = headrace_get_error(&device);
    assert(error.address == 0x100000000 && !strcmp(headrace_cause_name(error.cause), "BUS"));
    assert(!strcmp(headrace_engine_name(error.engine), "STORE"));
    assert(!strcmp(headrace_cause_name((enum headrace_cause)99), "unknown"));

    registers[HEADRACE_REG_COUNTER_HI(HEADRACE_COUNTER_DATAFLOW_BEATS) / 4] = 3;
    headrace_read_counters(&device, counters);
    assert(counters[HEADRACE_COUNTER_DATAFLOW_BEATS] == 0x300000000);
    return 0;
}
