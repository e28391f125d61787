/* Frames in and out. A damaged frame is dropped without a word: the host's time-out asks again. */
#include "protocol.h"

#include "port.h"

uint32_t get_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
uint32_t get_u32(const uint8_t *p) { return get_u16(p) | get_u16(p + 2) << 16; }

uint8_t *put_u16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    return p + 2;
}

uint8_t *put_u32(uint8_t *p, uint32_t v) { return put_u16(put_u16(p, v), v >> 16); }
uint8_t *put_u64(uint8_t *p, uint64_t v) { return put_u32(put_u32(p, (uint32_t)v), (uint32_t)(v >> 32)); }

/* CRC-32 of IEEE 802.3 (as zlib.crc32), four bits at a time: 64 bytes of table. */
uint32_t protocol_crc32(const uint8_t *bytes, uint32_t count) {
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return ~crc;
}

/* Reads up to a delimiter; the decoded length, or 0 for what is not a whole COBS block or does not fit. */
static uint32_t receive_cobs(uint8_t *bytes, uint32_t capacity) {
    uint32_t count = 0, left = 0, good = 1, zero = 0;
    for (;;) {
        uint32_t byte = port_get();
        if (byte == 0) {
            return good && left == 0 ? count : 0;
        }
        if (left != 0) {
            left--;
        } else {
            left = byte - 1;
            uint32_t write_zero = zero;
            zero = byte != 0xFF;
            if (!write_zero) {
                continue;
            }
            byte = 0;
        }
        if (count < capacity) {
            bytes[count++] = (uint8_t)byte;
        } else {
            good = 0;
        }
    }
}

static void send_cobs(const uint8_t *bytes, uint32_t count) {
    uint32_t i = 0;
    port_put(0); /* ends whatever noise came before */
    for (;;) {
        uint32_t run = 0;
        while (run < 254 && i + run < count && bytes[i + run] != 0) {
            run++;
        }
        port_put((uint8_t)(run + 1));
        for (uint32_t k = 0; k < run; k++) {
            port_put(bytes[i + k]);
        }
        i += run;
        if (i >= count) {
            break;
        }
        if (run < 254) {
            i++; /* the zero this block stands for */
        }
    }
    port_put(0);
    port_flush();
}

void protocol_receive(protocol_frame *frame) {
    for (;;) {
        uint32_t count = receive_cobs(frame->bytes, sizeof frame->bytes);
        if (count < FRAME_HEADER + FRAME_CRC) {
            continue;
        }
        uint32_t length = get_u16(frame->bytes + 3);
        if (length != count - FRAME_HEADER - FRAME_CRC) {
            continue;
        }
        if (get_u32(frame->bytes + count - FRAME_CRC) != protocol_crc32(frame->bytes, count - FRAME_CRC)) {
            continue;
        }
        frame->type = frame->bytes[0];
        frame->seq = (uint16_t)get_u16(frame->bytes + 1);
        frame->length = (uint16_t)length;
        return;
    }
}

static void send(protocol_frame *frame, uint8_t type, uint32_t length) {
    frame->bytes[0] = type;
    (void)put_u16(frame->bytes + 1, frame->seq);
    (void)put_u16(frame->bytes + 3, length);
    uint32_t count = FRAME_HEADER + length;
    (void)put_u32(frame->bytes + count, protocol_crc32(frame->bytes, count));
    send_cobs(frame->bytes, count + FRAME_CRC);
}

void protocol_reply(protocol_frame *frame, uint32_t length) {
    send(frame, (uint8_t)(frame->type | MSG_REPLY), length);
}

void protocol_error(protocol_frame *frame, uint8_t code, const char *text) {
    uint8_t *p = protocol_payload(frame);
    uint32_t length = 0;
    p[length++] = code;
    while (*text != 0 && length < BOARD_MAX_PAYLOAD) {
        p[length++] = (uint8_t)*text++;
    }
    send(frame, MSG_ERROR, length);
}
