/* Integers and streams of Vivado HLS and Vitis HLS, by the names that nn_kernels.h uses. */
#ifndef NN_TYPES_H_
#define NN_TYPES_H_

#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "nnet_common.h"
#include "nnet_types.h"

namespace nn {

template <int W> struct wide { /* a signed integer of W bits */
    typedef ap_int<W> type;
};

} // namespace nn

#define NN_STREAM(T) hls::stream<T>

#endif
