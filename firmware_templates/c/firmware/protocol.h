/* The wire format, twin of toolchain/protocol.py; docs/protocol.md says it in words. Integers are little endian.
 *   frame   = 0x00 COBS(type u8, seq u16, length u16, payload, crc32 of all before) 0x00
 *   HELLO       -                                   -> version u8, graph digest 32, project digest 32, counter kind u8,
 *                                                      counter_hz u32, largest payload u16, ops u16, board name
 *   WRITE       tensor u16, offset u32, bytes       -> -
 *   READ        tensor u16, offset u32, length u16  -> bytes
 *   RUN         stop u32                            -> ticks u64, overhead u32, interrupts u32, stack u32
 *   PROFILE     first op u16                        -> first op u16, overhead u32, then (ticks u64, interrupts u32) an op
 *   RESET_STATE -                                   -> -
 *   SELECT      model u16                           -> number of models u16, name of this one
 *   a reply has the request's seq and its type | 0x80, or is ERROR: code u8, text */
#ifndef PROTOCOL_H
#define PROTOCOL_H
#include <stdint.h>

#include "board.h"

#define PROTOCOL_VERSION 1u

#define MSG_HELLO 1u
#define MSG_WRITE 2u
#define MSG_READ 3u
#define MSG_RUN 4u
#define MSG_PROFILE 5u
#define MSG_RESET_STATE 6u
#define MSG_SELECT 7u
#define MSG_REPLY 0x80u
#define MSG_ERROR 0xFFu

#define ERROR_UNKNOWN_REQUEST 1u
#define ERROR_BAD_LENGTH 2u
#define ERROR_NO_SUCH_TENSOR 3u
#define ERROR_OUT_OF_RANGE 4u
#define ERROR_NOT_WRITABLE 5u
#define ERROR_STACK_OVERFLOW 6u
#define ERROR_FAULT 7u
#define ERROR_NO_SUCH_MODEL 8u

#define FRAME_HEADER 5u
#define FRAME_CRC 4u

/* One buffer for the request and, overwritten in place, its reply: a board with 16 KB has no room for two. */
typedef struct {
    uint8_t type;
    uint16_t seq;
    uint16_t length;
    uint8_t bytes[FRAME_HEADER + BOARD_MAX_PAYLOAD + FRAME_CRC]; /* header, payload, crc as on the wire */
} protocol_frame;

static inline uint8_t *protocol_payload(protocol_frame *frame) { return frame->bytes + FRAME_HEADER; }

void protocol_receive(protocol_frame *frame); /* waits; returns only an intact request */
void protocol_reply(protocol_frame *frame, uint32_t length);
void protocol_error(protocol_frame *frame, uint8_t code, const char *text);
uint32_t protocol_crc32(const uint8_t *bytes, uint32_t count);

uint32_t get_u16(const uint8_t *p);
uint32_t get_u32(const uint8_t *p);
uint8_t *put_u16(uint8_t *p, uint32_t v);
uint8_t *put_u32(uint8_t *p, uint32_t v);
uint8_t *put_u64(uint8_t *p, uint64_t v);

#endif
