-- SPDX-License-Identifier: MIT
return { 'ok' }
