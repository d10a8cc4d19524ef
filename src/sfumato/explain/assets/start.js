"use strict";
Sfumato.start();
